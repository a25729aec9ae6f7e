"""Decoding pictures strictly, without loading torch."""

import numpy as np
from PIL import Image

from spark_bench.errors import InputError, printable

_COPY = 'copy it again, or take it out of the data set'


def read_picture(file, name=None):
    """Decode a picture completely; of an animation, the first frame.

    An orientation in EXIF is not applied, as torchvision's loader does not, with which the authors trained.

    Args:
        file: path or binary file.
        name: what to call it in an error, where ``file`` is not a path.

    Returns:
        :class:`PIL.Image.Image` in RGB.

    Raises:
        InputError: naming the file, where it is absent, cut short or not a picture.
    """
    name = file if name is None else name
    try:
        with Image.open(file) as picture:
            return _to_rgb(picture)
    except Exception as error:  # noqa: BLE001 - decoders raise anything at broken input
        what, remedy = explain(error)
        raise InputError(f'picture {printable(name)} {what}: {remedy}') from error


def read_from(source, index):
    """Decode a picture of a source; see :func:`read_picture`.

    Args:
        source: see :func:`spark_bench.data.sources.open_pictures`.
        index: of the picture.

    Raises:
        InputError: naming the picture.
    """
    name = source.name(index)
    try:
        file = source.open(index)
    except Exception as error:  # noqa: BLE001 - readers of archives raise anything at broken input
        raise InputError(f'picture {printable(name)} cannot be read from its archive ({printable(error)[:200]}): copy '
                         'the archive again, or take the picture out') from error
    return read_picture(file, name)


def explain(error):
    """What an exception of opening or decoding a picture means: ``(what is wrong with the picture, remedy)``."""
    if isinstance(error, FileNotFoundError):
        return 'does not exist', 'restore it, or take it out of the data set'
    if isinstance(error, PermissionError):
        return 'may not be read', 'change its permissions'
    if isinstance(error, Image.DecompressionBombError):
        return (f'has more than {2 * Image.MAX_IMAGE_PIXELS} pixels',
                'make it smaller, or take it out of the data set')
    if isinstance(error, OSError) and error.errno:
        return f'cannot be read ({error.strerror})', _COPY
    return ('is cut short' if 'truncated' in str(error) else 'is not a readable picture'), _COPY


def _to_rgb(picture):
    if picture.mode.startswith('I;16'):
        # Pillow would clip 16-bit values to 255: almost all white.
        picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
    elif picture.mode == 'P' and 'transparency' in picture.info:
        picture = picture.convert('RGBA')
    return picture.convert('RGB')
