"""Whether the box and the mask of one annotation make sense, given that they are well-formed."""

from spark_bench.data.coco.filtering import why_left_out
from spark_bench.data.coco.masks import mask_extent
from spark_bench.data.coco.rle import Runs

# A box may reach so far outside of its image, in pixels; below the second figure it is rounding.
TOLERANCE, ROUNDING = 1.0, 0.01
# Boxes are compared only where a side is off by more than this: of a small object any rounding changes the overlap.
_OFF, _LOW_IOU = 2.0, 0.5


def judge_shapes(annotation: dict, mask: list | Runs, size: tuple[int, int]) -> list[tuple[str, str]]:
    """Look at one annotation.

    Args:
        annotation: entry that :func:`spark_bench.data.coco.annotations.examine` passed.
        mask: of it, see :func:`spark_bench.data.coco.rle.read_masks`.
        size: (width, height) of its image.

    Returns:
        list of (kind in ``report.KINDS``, detail).
    """
    left, top, width, height = annotation['bbox']
    if width < 0 or height < 0 or annotation['area'] < 0:
        return [('negative box', f'has bbox {annotation["bbox"]} and area {annotation["area"]}')]
    found = []
    reason = why_left_out(annotation, size)
    if reason and reason != 'crowds':
        found.append(('left out', f'has bbox {annotation["bbox"]} and area {annotation["area"]}: {reason}'))
    box = left, top, left + width, top + height
    _add_outside(found, 'box', box, size)
    if mask == []:  # of annotations that are boxes alone
        return found
    extent = mask_extent(mask)
    if extent is None:
        if not found:
            found.append(('empty mask', 'has a mask without a pixel'))
        return found
    _add_outside(found, 'mask', extent, size)
    off = max(abs(a - b) for a, b in zip(box, extent, strict=True))
    if off > _OFF and _iou(box, extent) < _LOW_IOU:
        found.append(('box and mask', f'has bbox {annotation["bbox"]}, its mask {_as_bbox(extent)}'))
    return found


def _add_outside(found, what, box, size):
    outside = max(-box[0], -box[1], box[2] - size[0], box[3] - size[1])
    if outside > ROUNDING:
        kind = f'{what} outside' if outside > TOLERANCE else f'{what} sticks out'
        found.append((kind, f'has a {what} {_as_bbox(box)} in an image of {size[0]}x{size[1]}'))


def _as_bbox(box):
    left, top, right, bottom = box
    return [round(value, 2) for value in (left, top, right - left, bottom - top)]


def _iou(a, b):
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 1.0
