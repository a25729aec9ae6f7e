"""Photographs and pictographs, read from the folders of installed packages."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spark_bench.errors import InputError

# Filled silhouettes: an outline glyph would leave a mask that is mostly background.
_CODE_POINTS = {
    'airplane': 0x2708,
    'umbrella': 0x2602,
    'star': 0x2605,
    'heart': 0x2665,
    'telephone': 0x260E,
    'knight': 0x265E,
    'gear': 0x2699,
    'club': 0x2663,
    'face': 0x263B,
    'flag': 0x2691,
}

CATEGORIES = tuple(_CODE_POINTS)
"""Names of the ten categories; the category id is the position plus one."""

GLYPH_SIDES = (256, 128, 64, 32)
"""Longer sides, in pixels, at which a pictograph is kept. Several, because shrinking 256 to 24 in one
bilinear step would skip pixels and tear thin strokes."""

# From the package to look in to the distribution to install.
_DISTRIBUTIONS = {'skimage': 'scikit-image', 'sklearn': 'scikit-learn', 'matplotlib': 'matplotlib'}
_FONT = ('matplotlib', 'mpl-data/fonts/ttf/DejaVuSans.ttf')

# By package: read by path, because the packages' own loaders may download, or import far more than an image needs.
_PHOTOGRAPHS = {
    'skimage': (
        'data/astronaut.png',
        'data/brick.png',
        'data/camera.png',
        'data/chelsea.png',
        'data/coffee.png',
        'data/coins.png',
        'data/grass.png',
        'data/gravel.png',
        'data/hubble_deep_field.jpg',
        'data/ihc.png',
        'data/moon.png',
        'data/motorcycle_left.png',
        'data/retina.jpg',
        'data/rocket.jpg',
    ),
    'sklearn': ('datasets/images/china.jpg', 'datasets/images/flower.jpg'),
    'matplotlib': ('mpl-data/sample_data/grace_hopper.jpg',),
}

# A crop is at most this large before it is scaled to a scene, so larger photographs only cost memory.
_SHORTER_SIDE = 512


@lru_cache(maxsize=1)
def photographs() -> tuple[np.ndarray, ...]:
    """Return the photographs, a tuple of read-only uint8 arrays (height, width, 3) in RGB order.

    Raises:
        InputError: a photograph is absent or unreadable; the message names the package to reinstall.
    """
    return tuple(_read_photograph(package, relative) for package, names in _PHOTOGRAPHS.items() for relative in names)


@lru_cache(maxsize=len(CATEGORIES))
def pictograph(category_id: int) -> tuple[np.ndarray, ...]:
    """Return the coverage of one pictograph at each of ``GLYPH_SIDES``.

    Args:
        category_id: 1 to 10, the position in ``CATEGORIES`` plus one.

    Returns:
        A tuple of read-only uint8 arrays (height, width), 0 outside and 255 inside, cropped tight.

    Raises:
        InputError: the font is absent or unreadable, or has no such pictograph.
    """
    name = CATEGORIES[category_id - 1]
    largest = _draw_glyph(name, GLYPH_SIDES[0])
    height, width = largest.shape
    levels = []
    for side in GLYPH_SIDES:
        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        level = cv2.resize(largest, size, interpolation=cv2.INTER_AREA)
        level.setflags(write=False)
        levels.append(level)
    return tuple(levels)


def _locate(package, relative):
    """Return the path of a file inside an installed package, without importing the package."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else ()
    for folder in folders or ():
        path = Path(folder, relative)
        if path.is_file():
            return path
    raise InputError(f'{package}/{relative} is missing; {_remedy(package)}')


def _remedy(package):
    return f'reinstall its package: pip install --force-reinstall {_DISTRIBUTIONS[package]}'


def _read_photograph(package, relative):
    path = _locate(package, relative)
    encoded = np.fromfile(path, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    if image is None:
        raise InputError(f'{path} is not a readable image; {_remedy(package)}')
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    scale = _SHORTER_SIDE / min(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    image.setflags(write=False)
    return image


def _draw_glyph(name, side):
    """Return the coverage (uint8) of a pictograph, cropped tight, drawn at about ``side`` pixels or more."""
    path = _locate(*_FONT)
    character = chr(_CODE_POINTS[name])
    try:
        # An em of twice the side: pictographs fill half an em or more.
        font = ImageFont.truetype(str(path), 2 * side, layout_engine=ImageFont.Layout.BASIC)
        canvas = Image.new('L', (3 * side, 3 * side))
        ImageDraw.Draw(canvas).text((side // 2, side // 4), character, font=font, fill=255)
        box = canvas.getbbox()
        missing = Image.new('L', canvas.size)
        ImageDraw.Draw(missing).text((side // 2, side // 4), chr(0x10FFFE), font=font, fill=255)
    except OSError as error:
        raise InputError(f'{path} is not a readable font ({error}); {_remedy(_FONT[0])}') from error
    # A font draws one and the same box for every character that it lacks.
    if box is None or canvas.tobytes() == missing.tobytes():
        raise InputError(f'{path} has no pictograph U+{ord(character):04X} for {name!r}; {_remedy(_FONT[0])}')
    return np.asarray(canvas.crop(box))
