"""Images for a page: objects drawn over pixels, and pixels as data: URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DETECTION_SIDE = 448  # twice the embedded images' 256 or so: names stay legible
# Ten hues far apart, readable below white text; category i takes colour i modulo 10.
CATEGORY_COLOURS = (
    (31, 119, 180),
    (200, 82, 0),
    (44, 130, 60),
    (190, 40, 45),
    (120, 80, 170),
    (125, 80, 70),
    (190, 70, 150),
    (95, 95, 95),
    (125, 125, 20),
    (10, 130, 145),
)

Objects = Sequence[Mapping[str, Any]]  # COCO's annotations or results: bbox, category_id, segmentation, score
Categories = Mapping[int, tuple[int, str]]  # COCO's identifier → (place, name)


@dataclass(frozen=True)
class Image:
    """One image, ready for a page."""

    uri: str  # data: URI of a JPEG
    alt: str  # what it shows, in words
    width: int
    height: int


def encode(pixels: np.ndarray, alt: str, side: int) -> Image:
    """``pixels``, uint8 (H, W, 3), as a JPEG whose longer side is ``side``, enlarged if need be."""
    import PIL.Image

    image = PIL.Image.fromarray(pixels)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size != image.size:
        image = image.resize(size, PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format='JPEG', quality=86, optimize=True)
    return Image('data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode('ascii'), alt, *size)


def draw_objects(pixels: np.ndarray, objects: Objects, categories: Categories, title: str) -> Image:
    """The image enlarged, with each object's tinted mask, box, category and, if it has one, score.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        objects: the one that is to lie on top comes last.
        categories: those that lack one of theirs are written as its identifier.
        title: begins the text alternative.

    Raises:
        ValueError, TypeError, KeyError, IndexError: for damaged boxes or masks.
    """
    import matplotlib
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    height, width = pixels.shape[:2]
    scale = DETECTION_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.BICUBIC)).astype(np.float32)
    colours = [CATEGORY_COLOURS[categories.get(o.get('category_id'), (0, ''))[0] % 10] for o in objects]
    for item, colour in zip(objects, colours, strict=True):
        mask = _mask(item.get('segmentation'), height, width)
        if mask is not None:
            covered = np.asarray(PIL.Image.fromarray(mask * np.uint8(255)).resize(size)) > 127
            canvas[covered] = 0.55 * canvas[covered] + 0.45 * np.array(colour)
    image = PIL.Image.fromarray(canvas.round().astype(np.uint8))
    pen = PIL.ImageDraw.Draw(image)
    font = PIL.ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')), 13)
    words = []
    for item, colour in zip(objects, colours, strict=True):
        x, y, w, h = (float(v) * scale for v in item['bbox'])
        pen.rectangle((x, y, x + max(w, 1), y + max(h, 1)), outline=colour, width=2)
        text = categories.get(item.get('category_id'), (0, str(item.get('category_id'))))[1]
        text += f' {item["score"]:.2f}' if 'score' in item else ''
        words.append(text)
        left, top, right, bottom = font.getbbox(text)
        # Above the box where there is room, and never cut off by the image's edge.
        at = (min(max(x, 0), max(size[0] - right - 6, 0)), y - bottom - 4 if y > bottom + 4 else max(y, 0))
        pen.rectangle((at[0], at[1], at[0] + right + 6, at[1] + bottom + 4), fill=colour)
        pen.text((at[0] + 3, at[1] + 1), text, fill=(255, 255, 255), font=font)
    return encode(np.asarray(image), f'{title}: {", ".join(words) or "nothing found"}', DETECTION_SIDE)


def _mask(segmentation: Any, height: int, width: int) -> np.ndarray | None:
    """A COCO segmentation (polygons or any RLE) as uint8 0/1 (height, width); None if it is empty."""
    import pycocotools.mask

    if not segmentation:
        return None
    if isinstance(segmentation, list):
        segmentation = pycocotools.mask.merge(pycocotools.mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        segmentation = pycocotools.mask.frPyObjects(segmentation, height, width)
    mask = pycocotools.mask.decode(segmentation)
    return mask if mask.shape == (height, width) else None
