"""Decoding images strictly, without loading torch: upright, in RGB, 8 bits a value."""

import os
import struct
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from spark_bench.data.images.bit_depth import UnplainError, to_rgb
from spark_bench.data.images.numbered import Source
from spark_bench.errors import InputError, printable

_COPY = 'copy it again, or take it out of the data set'
REMEDY_VALUES = (
    'write all images of the set anew with one scale, in 8 bits, or in 16 that are used in full (those '
    'of 12 bits times 16); or take it out'
)
REMEDY_TURNED = (
    'see in which frame the boxes are: EXIF turns these images, and they are read upright, as '
    'annotation tools show them. Where the boxes fit the image as stored, drop the EXIF orientation '
    '(exiftool -Orientation= -overwrite_original); where they fit it upright, state the upright size'
)

# EXIF's orientation, and what turns an image of that orientation upright. From 5 on, width and height change places.
_ORIENTATION, _SWAPPED = 274, 5
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Tags of TIFF, and how such a file starts.
_WIDTH, _HEIGHT = 256, 257
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# How others start, which Pillow does not always read; the box that HEIF and AVIF begin with stands behind its length.
_BOX, _JPEG_XL = b'ftyp', (b'\xff\x0a', b'\0\0\0\x0cJXL ')


class KindError(ValueError):
    """An image is of a kind that Pillow does not read; the message goes on the sentence "image X …"."""


class Decoded(NamedTuple):
    """An image, and what was done to it.

    Attributes:
        image: :class:`PIL.Image.Image`, upright, in RGB; None where only the header was read.
        size: (width, height), upright.
        stored_size: (width, height) as stored.
        turned: whether EXIF turns it, or mirrors it.
        mode: Pillow's, as stored.
        scaled: how its values became 8 bits, where they are not; else empty.
    """

    image: Image.Image | None
    size: tuple[int, int]
    stored_size: tuple[int, int]
    turned: bool
    mode: str
    scaled: str

    def is_stored_as(self, stated: tuple[int, int]) -> bool:
        """Whether ``stated``, (width, height), is its size before EXIF turns it, and not behind."""
        return self.size != tuple(stated) == self.stored_size


def read_image(file: Path | str | BinaryIO, name: str | None = None) -> Image.Image:
    """Decode an image completely, upright and in RGB; of an animation, the first frame.

    What EXIF says of its orientation is applied, as annotation tools and browsers do. Values that are not of 8 bits
    are scaled by what their type says, the same for all images of a data set, and refused where it says nothing:
    see :func:`~spark_bench.data.images.bit_depth.to_rgb`.

    Args:
        name: what to call it in an error, where ``file`` is not a path.

    Raises:
        InputError: naming the file, where it is absent, cut short, not an image, or of values without a plain scale.
    """
    return _read(file, file if name is None else name).image


def read_stated(path: Path | str, stated: tuple[int, int], where: str, pixels: bool = True) -> Image.Image | None:
    """:func:`read_image` of a file whose size annotations state.

    Args:
        stated: (width, height).
        where: what states it, for the message.
        pixels: False reads the header alone, and returns None.

    Raises:
        InputError: likewise, and where it has another size.
    """
    decoded = _read(path, path, pixels)
    if decoded.size != tuple(stated):
        (width, height), turned = decoded.size, decoded.is_stored_as(stated)
        raise InputError(
            f'image {printable(path)} is {width}x{height}{" upright" if turned else ""}, but {where} '
            f'{stated[0]}x{stated[1]}'
            + (
                f', its size as stored: {REMEDY_TURNED}'
                if turned
                else ': restore the image that the annotations were made for, or state its size'
            )
        )
    return decoded.image


def read_from(source: Source, index: int) -> Image.Image:
    """Decode an image of a source; see :func:`read_image`. Raises InputError, naming the image."""
    name = source.name(index)
    try:
        file = source.open(index)
    except Exception as error:  # noqa: BLE001 - readers of archives raise anything at broken input
        raise InputError(
            f'image {printable(name)} cannot be read from its archive ({printable(error)[:200]}): copy '
            'the archive again, or take the image out'
        ) from error
    return read_image(file, name)


def _read(file, name, pixels=True):
    try:
        return decode(file, pixels)
    except Exception as error:  # noqa: BLE001 - decoders raise anything at broken input
        what, remedy = explain(error)
        raise InputError(f'image {printable(name)} {what}: {remedy}') from error


def explain(error: Exception) -> tuple[str, str]:
    """What an exception of :func:`decode` means: ``(what is wrong with the image, remedy)``."""
    if isinstance(error, FileNotFoundError):
        return 'does not exist', 'restore it, or take it out of the data set'
    if isinstance(error, PermissionError):
        return 'may not be read', 'change its permissions'
    if isinstance(error, UnplainError):
        return str(error), REMEDY_VALUES
    if isinstance(error, KindError):
        return str(error), 'convert it to PNG or JPEG, or take it out of the data set'
    if isinstance(error, Image.DecompressionBombError):
        return (f'has more than {2 * Image.MAX_IMAGE_PIXELS} pixels', 'make it smaller, or take it out of the data set')
    if isinstance(error, OSError) and error.errno:
        return f'cannot be read ({error.strerror})', _COPY
    return ('is cut short' if 'truncated' in str(error) else 'is not a readable image'), _COPY


def decode(file: Path | str | BinaryIO, pixels: bool = True) -> Decoded:
    """Decode an image, upright, in RGB; without ``pixels``, read no more than its size, mode and orientation.

    Raises:
        UnplainError: see :func:`~spark_bench.data.images.bit_depth.to_rgb`.
        KindError: where it is of a kind that is known and not read.
        Exception: of any other kind, where it cannot be read.
    """
    with warnings.catch_warnings():
        # Of EXIF blocks, mostly, that are damaged.
        warnings.simplefilter('ignore')
        return _decode(file, pixels)


def _decode(file, pixels):
    if not hasattr(file, 'read'):
        # Pillow would map a TIFF into memory by its size behind EXIF's turn, and read rows of the wrong length.
        with open(file, 'rb') as opened:
            return _decode(opened, pixels)
    try:
        opened = Image.open(file)
    except UnidentifiedImageError as error:
        raise _unidentified(file) or error from error
    with opened as image:
        mode, orientation, scaled, read = image.mode, _orientation_of_tiff(image), '', None
        if pixels:
            read, scaled = to_rgb(image)
            # EXIF may stand behind the pixels. Pillow turns a TIFF itself, while it loads it.
            left = _orientation(image)
            read = read.transpose(_UPRIGHT[left]) if left else read
            orientation, size = orientation or left, read.size
        elif orientation:
            size = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
            size = size[::-1] if orientation >= _SWAPPED else size
        else:
            if image.format == 'PNG':
                _find_exif_in_png(image)
            orientation = _orientation(image)
            size = image.size[::-1] if orientation >= _SWAPPED else image.size
        return Decoded(read, size, size[::-1] if orientation >= _SWAPPED else size, orientation > 0, mode, scaled)


def _orientation_of_tiff(image):
    found = image.tag_v2.get(_ORIENTATION) if image.format == 'TIFF' else None
    return found if found in _UPRIGHT else 0


def _orientation(image):
    """How EXIF turns an image: a key of ``_UPRIGHT``, or 0. A broken EXIF block turns nothing."""
    try:
        # Not the method of the image's own class: that of PNG decodes the pixels first.
        found = Image.Image.getexif(image).get(_ORIENTATION)
        return found if found in _UPRIGHT else 0
    except Exception:  # noqa: BLE001 - a broken EXIF block is no fault of the image
        return 0


def _find_exif_in_png(image):
    """Take in EXIF that stands behind the pixels, without decoding them; Pillow stops in front of these."""
    file = image.fp
    file.seek(len(b'\x89PNG\r\n\x1a\n'))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack('>I4s', head)
        if kind == b'eXIf':
            image.info['exif'] = b'Exif\0\0' + file.read(length)
            return
        file.seek(length + 4, os.SEEK_CUR)


def _unidentified(file):
    """An error that says more than Pillow's; or None."""
    file.seek(0)
    start = file.read(12)
    if start[4:8] == _BOX or start.startswith(_JPEG_XL):
        return KindError('is of HEIF, AVIF or JPEG XL, which Pillow does not read here')
    if start[:4] in _TIFF:
        return UnplainError('is a TIFF of a kind that cannot be read, such as floats of 64 bits, or colours of floats')
    return None
