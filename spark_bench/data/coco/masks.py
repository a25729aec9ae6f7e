"""The box and the area of a mask, polygons or decoded run lengths, given that it is well-formed."""

from itertools import pairwise
from operator import mul

from spark_bench.data.coco.rle import Runs

# Fewer coordinates than these are no polygon: mmdet leaves them out, and pycocotools draws nothing.
SHORTEST_POLYGON = 6


def mask_extent(mask: list | Runs) -> tuple | None:
    """``(left, top, right, bottom)`` in pixels; None where the mask covers nothing."""
    if isinstance(mask, Runs):
        return mask.extent
    boxes = [
        (min(polygon[::2]), min(polygon[1::2]), max(polygon[::2]), max(polygon[1::2])) for polygon in mask if polygon
    ]
    if sum(_covered(polygon) for polygon in mask if polygon) < 1e-6:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def mask_area(mask: list | Runs) -> float:
    """The area in pixels: of polygons the sum of theirs, of run lengths the number of pixels."""
    if isinstance(mask, Runs):
        return float(sum(mask.lengths[1::2]))
    return sum(_polygon_area(polygon[::2], polygon[1::2]) for polygon in mask)


def _covered(polygon):
    """An area that is 0 only where a polygon encloses nothing: parts of one that crosses itself add up here."""
    left, top = polygon[:2]
    corners = [(x - left, y - top) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
    return sum(abs(x * below - y * right) for (x, y), (right, below) in pairwise(corners)) / 2


def _polygon_area(xs, ys):
    # The shoelace formula.
    return abs(sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, ys, xs[1:] + xs[:1]))) / 2
