"""What an annotation file in COCO format must hold, so that neither training nor evaluation breaks on it."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from spark_bench.data.coco.cleaning import Note, clean, entries_of
from spark_bench.data.coco.masks import SHORTEST_POLYGON
from spark_bench.data.coco.rle import MaskError, Runs, read_masks
from spark_bench.errors import InputError

# No image has as many pixels a side; pycocotools draws a polygon's outline in memory, however far it reaches.
PIXEL_LIMIT = 10**6
_SHOWN = 60  # characters of a value in a message
_NEEDED = {
    'images': ('id', 'file_name', 'width', 'height'),
    'categories': ('id', 'name'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation'),
}
_DROP = 'correct it, or take it out of the file'
_ADD_MASKS = 'add polygons [[x, y, x, y, x, y, …], …] or RLE with size and counts'
NO_MASKS = f'for Mask R-CNN and others that learn masks, {_ADD_MASKS}'
# From the kind of a fault to its remedy.
REMEDIES = {
    'not readable': 'replace it by the whole file',
    'format': 'give a file of instances in COCO format: an object with images, annotations and categories',
    'empty': 'give the whole file, or annotate the images of this split',
    'entry': 'add what is missing, or take the entry out of the file',
    'no mask': f'others have one: {_ADD_MASKS}',
    'id': 'number the entries 1, 2, 3, …',
    'duplicate id': 'give every entry an id of its own',
    'duplicate name': 'list each image once, with all its annotations',
    'reference': 'restore the entry that it names, or take it out of the file',
    'image entry': _DROP,
    'category entry': _DROP,
    'bbox': f'a box is [left, top, width, height] in pixels; {_DROP}',
    'area or crowd': f'area is a number of pixels and iscrowd 0 or 1; {_DROP}',
    'segmentation': f'a mask is polygons [[x, y, x, y, x, y, …], …] or RLE with size and counts; {_DROP}',
}


# What the first bytes, or the top of the JSON, say of files that are given for annotations by mistake.
_OTHER_FILES = (
    (b'version https://git-lfs', 'is a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`'),
    (b'<', 'is a web page or XML, not JSON: download the file itself'),
    (b'\x1f\x8b', 'is compressed by gzip: unpack it'),
    (b'PK', 'is a zip archive: unpack it'),
)


class AnnotationFile(NamedTuple):
    """What an annotation file holds, cleaned.

    Attributes:
        sha256: of its bytes, hex.
        contents: of the JSON, after :func:`~spark_bench.data.coco.cleaning.clean`; anything, where it is not in COCO
            format.
        masks: whether its annotations are to have masks, see there.
    """

    sha256: str
    contents: Any
    masks: bool


@dataclass
class Entries:
    """The entries of an annotation file that :func:`examine` found no fault with.

    Attributes:
        images: list of (position, entry).
        categories: list of entries.
        annotations: list of (position, entry).
    """

    images: list = field(default_factory=list)
    categories: list = field(default_factory=list)
    annotations: list = field(default_factory=list)


def read_annotations(path: Path | str, note: Note = lambda kind, where, what: None) -> AnnotationFile:
    """Read an annotation file: the one reader of checks, training and evaluation.

    UTF-8, UTF-16 and UTF-32 are told apart by their first bytes, a byte order mark is passed over. What is cleaned is
    told to ``note`` as :func:`~spark_bench.data.coco.cleaning.clean` does.

    Raises:
        InputError: where it cannot be read or is not JSON.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}): restore it, or change its permissions') from error
    try:
        contents = json.loads(raw)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise InputError(f'{path} {_not_json(raw, error)}') from error
    return AnnotationFile(hashlib.sha256(raw).hexdigest(), contents, clean(contents, note))


def _not_json(raw, error):
    if not raw.strip():
        return f'is empty: {REMEDIES["not readable"]}'
    for start, what in _OTHER_FILES:
        if raw.lstrip().startswith(start):
            return what
    if raw.lstrip()[:1] in b'{[' and b'\n{' in raw and getattr(error, 'msg', '') == 'Extra data':
        return 'holds one JSON object a line: write all as one object with images, annotations and categories'
    reason = 'nested too deep' if isinstance(error, RecursionError) else error
    return f'is not JSON ({reason}): {REMEDIES["not readable"]}'


def read_sound(path: Path | str) -> tuple[AnnotationFile, Entries]:
    """Read an annotation file and refuse what would break training or evaluation; see :func:`examine`.

    Raises:
        InputError: one line that names the file, the first entry that is at fault and the remedy.
    """

    def refuse(kind, entry, what):
        where = f'{path}: {entry}' if entry else path
        raise InputError(f'{where} {what}: {REMEDIES[kind]}')

    file = read_annotations(path)
    return file, examine(file.contents, refuse, file.masks)


def examine(contents: object, fault: Note, masks: bool = True) -> Entries:
    """The entries of an annotation file that are without fault.

    Args:
        contents: what the JSON holds; anything.
        fault: called with ``(kind, where, what)`` for each fault that would break training or evaluation: a key of
            ``REMEDIES``, the entry such as ``annotations[3] (id 17)`` (empty for the whole file), and what is wrong
            with it. It may raise.
        masks: whether annotations are to have masks.
    """
    sound = Entries()
    if not isinstance(contents, dict):
        what = 'a list, as files of results are' if isinstance(contents, list) else f'{shorten(contents)}'
        fault('format', '', f'is not in COCO format but {what}')
        return sound
    tables = {key: _table(contents, key, fault) for key in _NEEDED}
    # An entry with a fault of its own is known all the same, lest all that refers to it be told too.
    known = {
        key: {entry['id'] for _, entry in entries_of(contents, key) if _is_id(entry.get('id'))}
        for key in ('images', 'categories')
    }
    sizes = dict.fromkeys(known['images'])
    for position, entry in tables['images']:
        what = _image_fault(entry)
        if what:
            fault('image entry', name_entry('images', position, entry), what)
        else:
            sound.images.append((position, entry))
            sizes[entry['id']] = entry['width'], entry['height']
    for position, entry in tables['categories']:
        what = _name_fault(entry['name'])
        if what:
            fault('category entry', name_entry('categories', position, entry), f'has a name that {what}')
        else:
            sound.categories.append(entry)
    decoded = read_masks(entry['segmentation'] for _, entry in tables['annotations'])
    for (position, entry), mask in zip(tables['annotations'], decoded, strict=True):
        found = _annotation_fault(entry, sizes, known['categories'])
        if masks and not found and (what := _mask_fault(mask, sizes.get(entry['image_id']))):
            found = 'segmentation', f'has a segmentation {what}'
        if found:
            fault(found[0], name_entry('annotations', position, entry), found[1])
        else:
            sound.annotations.append((position, entry))
    return sound


def name_entry(key: str, position: int, entry: dict) -> str:
    """``annotations[3] (id 17)``."""
    return f'{key}[{position}] (id {shorten(entry["id"])})'


def shorten(value: object) -> str:
    """A value from a JSON file, whatever it is, as one short printable line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = f'a {type(value).__name__}'
    text = text.encode('ascii', 'backslashreplace').decode()
    return text if len(text) <= _SHOWN else f'{text[: _SHOWN - 1]}…'


def _table(contents, key, fault):
    """List of (position, entry) of one of the three lists: objects that have all keys and an id of their own."""
    if not isinstance(contents.get(key), list):
        fault('format', '', f'is not in COCO format: {key!r} is missing or not a list')
        return []
    if not contents[key]:
        fault('empty', '', f'is of no use: {key!r} is empty')
    table, seen = [], set()
    for position, entry in enumerate(contents[key]):
        missing = [name for name in _NEEDED[key] if not isinstance(entry, dict) or name not in entry]
        if missing:
            kind = 'no mask' if isinstance(entry, dict) and missing[0] == 'segmentation' else 'entry'
            fault(kind, f'{key}[{position}]', f'has no {missing[0]!r}')
        elif not _is_id(entry['id']):
            why = 'beyond 64 bits' if type(entry['id']) is int else 'not a whole number'
            fault('id', f'{key}[{position}]', f'has id {shorten(entry["id"])}, {why}')
        elif table and type(entry['id']) is not type(table[0][1]['id']):
            fault('id', f'{key}[{position}]', f'has id {shorten(entry["id"])}: some ids are text, others numbers')
        elif entry['id'] in seen:
            fault('duplicate id', name_entry(key, position, entry), 'has the same id as another entry')
        else:
            seen.add(entry['id'])
            table.append((position, entry))
    return table


def _is_id(value):
    return type(value) is int and -(2**63) <= value < 2**63 or type(value) is str


def _name_fault(name):
    if not isinstance(name, str):
        return 'is not text'
    if not name.strip():
        return 'is empty'
    # Half of a character of two halves, which JSON can hold and no file can.
    if any('\ud800' <= character <= '\udfff' for character in name):
        return f'holds no whole character: {shorten(name)}'
    return None


def _image_fault(entry):
    name = entry['file_name']
    if not isinstance(name, str) or not name or '\0' in name:
        return f'has file_name {shorten(name)}, not a name'
    for side in ('width', 'height'):
        if type(entry[side]) is not int or not 0 < entry[side] < PIXEL_LIMIT:
            return f'has {side} {shorten(entry[side])}, not a number of pixels'
    return None


def _annotation_fault(entry, sizes, categories):
    """(kind, what) of the first fault of an annotation, its mask apart, or None."""
    image, category = entry['image_id'], entry['category_id']
    for name, value, known, table in (
        ('image_id', image, sizes, 'images'),
        ('category_id', category, categories, 'categories'),
    ):
        if not _is_id(value) or value not in known:
            return 'reference', f'names {name} {shorten(value)}, which is not among its {table}'
    box, area, crowd = entry['bbox'], entry['area'], entry['iscrowd']
    if type(box) is not list or len(box) != 4 or not all(map(_is_pixels, box)):
        return 'bbox', f'has bbox {shorten(box)}, not four finite numbers'
    if type(area) not in (int, float) or not abs(area) < PIXEL_LIMIT**2:
        return 'area or crowd', f'has area {shorten(area)}, not a number'
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        return 'area or crowd', f'has iscrowd {shorten(crowd)}, not 0 or 1'
    return None


def _is_pixels(value):
    return type(value) in (int, float) and -PIXEL_LIMIT < value < PIXEL_LIMIT


def _mask_fault(mask, size):
    """What is wrong with a decoded mask, or None. ``size``: (width, height) of its image, or None if unknown."""
    if type(mask) is list:
        return _polygons_fault(mask)
    if isinstance(mask, MaskError):
        return str(mask)
    if not isinstance(mask, Runs):
        return f'that is {shorten(mask)}'
    if size is not None and mask.size[::-1] != tuple(size):
        return f'of {mask.size[1]}x{mask.size[0]} pixels for an image of {size[0]}x{size[1]}'
    return None


def _polygons_fault(polygons):
    if not polygons:
        return 'without a polygon'
    if len(polygons) > 2 and all(type(one) is list and len(one) == 2 for one in polygons):
        return 'that lists points [x, y]: write each polygon as x, y, x, y, … in a list of its own'
    for number, polygon in enumerate(polygons):
        if type(polygon) is not list:
            return f'whose polygon {number} is {shorten(polygon)}, not a list of numbers'
        if polygon and type(polygon[0]) is list:
            return f'whose polygon {number} lists points [x, y]: write it as x, y, x, y, …'
        if len(polygon) % 2:
            return f'whose polygon {number} has {len(polygon)} coordinates, an odd number'
        if len(polygon) < SHORTEST_POLYGON:
            return f'whose polygon {number} has {len(polygon)} coordinates, fewer than {SHORTEST_POLYGON}'
        if not _are_pixels(polygon):
            return f'whose polygon {number} has coordinates that are not finite numbers of pixels'
    return None


def _are_pixels(values):
    # A file such as COCO's has 50 million coordinates: loops in C alone. Addition refuses what is not a number, and a
    # NaN or an infinity remains in the sum.
    try:
        return abs(sum(values)) < PIXEL_LIMIT * len(values) and min(values) > -PIXEL_LIMIT and max(values) < PIXEL_LIMIT
    except (TypeError, OverflowError):
        return False
