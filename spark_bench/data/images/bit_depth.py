"""From values of whatever type to 8 bits, as a person would see the image.

The scale of wider values follows from their type, never from the values of the one image: all images of a data set
are scaled alike. Pillow by itself clips them, to black or white.
"""

import numpy as np
from PIL import Image

# Tags of TIFF.
_BITS, _PHOTOMETRIC, _MAX_SAMPLE, _SAMPLE_FORMAT = 258, 262, 281, 339
_CAMERAS = {2**bits - 1 for bits in range(9, 16)}
# Up to here, values of 16 bits are those of a camera of 12 bits or fewer, or an image that shows nothing.
_DARK = 4095


class UnplainError(ValueError):
    """An image is whole, but nothing says what its values mean; the message goes on the sentence "image X …"."""


def to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """An image as Pillow opens it, in RGB of 8 bits.

    Integers are of 16 bits (of fewer, where a TIFF states that), floats of 0 … 1. What has other values is refused;
    so is an image of 16 bits whose values all are those of 12, which would be nearly black.

    Args:
        image: :class:`PIL.Image.Image`, loaded or not.

    Returns:
        ``(image, scaled)``: in RGB, and in words how its values were scaled, empty for 8 bits.

    Raises:
        UnplainError: where nothing says what its values mean.
    """
    wide = _is_wide(image)
    _refuse_misread(image, wide)
    image.load()
    if image.mode == 'F' or image.mode.startswith('I'):
        grey, scaled = (_scale_floats if image.mode == 'F' else _scale_integers)(image)
        # Pillow applies this to 8 bits alone.
        inverted = _tag(image, _PHOTOMETRIC) == 0
        return Image.fromarray(255 - grey if inverted else grey).convert('RGB'), scaled
    if image.mode == 'P' and 'transparency' in image.info:
        image = image.convert('RGBA')
    image = image.convert('RGB')
    if not wide:
        return image, ''
    # Pillow has divided by 256.
    brightest = max(high for _, high in image.getextrema())  # type: ignore[misc]  # of RGB, a pair for each colour
    if 0 < brightest <= _DARK // 256:
        raise UnplainError(_too_dark(256 * brightest + 255))
    return image, 'colours of 16 bits are divided by 256'


def _is_wide(image):
    """Whether the values of an image in colours, not loaded yet, are of 16 bits."""
    if not image.mode.startswith(('RGB', 'LA')):
        return False
    for tile in getattr(image, 'tile', ()):
        raw = tile[3] if isinstance(tile[3], str) else tile[3][0] if tile[3] else ''
        return ';16' in str(raw)
    return False


def _refuse_misread(image, wide):
    """Raise UnplainError where Pillow takes values for others: TIFFs in planes of 16 bits, or of signed bytes, and JPEG
    2000 in wide colours, whose white it wraps round to black."""
    if image.mode not in ('L', 'LA', 'RGB', 'RGBA'):
        return
    if image.format == 'JPEG2000' and image.mode != 'L' and _bits_of_jpeg2000(image.fp) > 8:
        raise UnplainError('is JPEG 2000 in colours of more than 8 bits, which cannot be read right')
    if _tag(image, _SAMPLE_FORMAT) == 2:
        raise UnplainError('has signed integers of 8 bits, which have no plain scale')
    if not wide and (_tag(image, _BITS) or 0) > 8 and image.mode.startswith('RGB'):
        raise UnplainError('has colours of more than 8 bits in planes of their own, which cannot be read')


def _bits_of_jpeg2000(file):
    """Bits of the first colour: Ssiz in the marker segment SIZ, the first of a code stream (ISO 15444-1)."""
    place = file.tell()
    file.seek(0)
    head = file.read(1 << 16)
    file.seek(place)
    start = head.find(b'\xff\x4f\xff\x51')
    return (head[start + 42] & 0x7F) + 1 if 0 <= start < len(head) - 42 else 8


def _scale_floats(image):
    values = np.asarray(image, dtype=np.float64)
    # Compared so that what is no number fails.
    low, high = values.min(), values.max()
    if not (255 * low >= -0.5 and 255 * high <= 255.5):
        raise UnplainError(f'has floats from {low:g} to {high:g}, of which only those from 0 to 1 have a plain scale')
    return np.round(255 * values).astype(np.uint8), 'floats of 0 … 1 are multiplied by 255'


def _scale_integers(image):
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    full = _full_scale(image)
    if low < 0 or high > full:
        raise UnplainError(
            f'has integers from {low} to {high}, of which only those from 0 to {full} have a plain scale'
        )
    if full > _DARK and 0 < high <= _DARK:
        raise UnplainError(_too_dark(high))
    return np.round(values * (255 / full)).astype(np.uint8), f'integers of 0 … {full} are divided by {full / 255:g}'


def _full_scale(image):
    """The value that is white: of 16 bits, or of the fewer that a TIFF says it has."""
    bits, largest = _tag(image, _BITS), _tag(image, _MAX_SAMPLE)
    if bits in range(9, 16):
        return 2**bits - 1
    # Files that say of themselves what their camera can reach; others say what this one image reaches.
    return largest if largest in _CAMERAS else 65535


def _tag(image, number):
    found = getattr(image, 'tag_v2', {}).get(number)
    return found[0] if isinstance(found, tuple) and found else found


def _too_dark(high):
    return f'has no value above {high} of 65535, as those of 12 bits in 16 have, and would be nearly black'
