"""Composing tiles to one figure, pixel by pixel, and writing image files.

No tile is ever resampled: a figure holds exactly the pixels that it was given.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from spark_bench.errors import InputError
from spark_bench.files import claim_output, make_folder, write_atomically

FONT_SIZE = 13
GAP = 8  # pixels between tiles and around the figure
LINE = 18  # height of a line of text in pixels
# How a figure of ours begins, which tells it from somebody's image.
OWN = rb'(?s)\x89PNG.{0,64}tEXtSoftware\x00spark-bench'
INK, PAPER = (40, 40, 40), (255, 255, 255)
# Suffixes that name another format than the one that is written.
_OTHER_FORMATS = {'.jpg', '.jpeg', '.webp', '.gif', '.bmp', '.tif', '.tiff', '.svg', '.pdf', '.eps', '.npz', '.csv'}


def compose(
    rows: Sequence[Sequence[np.ndarray]],
    headings: Sequence[str],
    caption: str,
    side_notes: Sequence[str] = (),
    captions: Sequence[list[str]] = (),
) -> Image.Image:
    """Lay out tiles in rows below headings, and a caption below all.

    Args:
        rows: lists of uint8 tiles ``(H, W, 3)``, all of one size, as many in a row as ``headings``.
        headings: one a column.
        caption: text below the figure, wrapped to its width.
        side_notes: one a row, written left of it; none when empty.
        captions: lists of texts below each tile, in the shape of ``rows``; none when empty.

    Returns:
        :class:`PIL.Image.Image`, RGB.
    """
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')), FONT_SIZE)
    height, width = rows[0][0].shape[:2]
    pitch_x = max([width, *(round(font.getlength(text)) for text in [*headings, *sum(captions, [])])]) + GAP
    pitch_y = height + GAP + (LINE if captions else 0)
    left = GAP + max([0, *(round(font.getlength(note)) + GAP for note in side_notes)])
    top = GAP + LINE
    total = left + pitch_x * len(headings)
    lines = textwrap.wrap(caption, max(20, int((total - 2 * GAP) / (0.85 * font.getlength('n')))))
    bottom = top + pitch_y * len(rows)
    figure = Image.new('RGB', (total, bottom + LINE * len(lines) + GAP), PAPER)
    pen = ImageDraw.Draw(figure)
    for column, heading in enumerate(headings):
        pen.text((left + column * pitch_x, GAP), heading, INK, font)
    for row, tiles in enumerate(rows):
        y = top + row * pitch_y
        if side_notes:
            pen.text((GAP, y + (height - LINE) // 2), side_notes[row], INK, font)
        for column, tile in enumerate(tiles):
            figure.paste(Image.fromarray(np.ascontiguousarray(tile)), (left + column * pitch_x, y))
            if captions:
                pen.text((left + column * pitch_x, y + height + 1), captions[row][column], INK, font)
    for i, line in enumerate(lines):
        pen.text((GAP, bottom + i * LINE), line, INK, font)
    return figure


def figure_path(output: Path | str, name: str) -> Path:
    """Where a figure goes: ``output`` itself if it ends in ``.png``, otherwise ``name`` in that folder.

    Whether it can be written is found out before anything is computed.

    Raises:
        InputError: for another format, a place that cannot be written, or one that another image has.
    """
    output = Path(output)
    suffix = output.suffix.lower()
    if suffix in _OTHER_FORMATS:
        raise InputError(
            f'--output {output}: only PNG is written, which loses no pixel; end the name in .png, or give a folder'
        )
    return claim_output(output if suffix == '.png' else output / name, OWN)


def write_png(path: Path | str, image: Image.Image | np.ndarray) -> None:
    """Write an image (PIL, or a uint8 array) as PNG, with the folder, replacing what was there in one step.

    Raises:
        InputError: where the folder cannot be written.
    """
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    buffer = io.BytesIO()
    mark = PngImagePlugin.PngInfo()
    mark.add_text('Software', 'spark-bench')
    image.save(buffer, format='PNG', optimize=True, pnginfo=mark)
    try:
        make_folder(Path(path).parent)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise InputError(f'cannot write {path}: {error.strerror}; choose another --output') from error
