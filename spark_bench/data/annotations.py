"""What an annotation file in COCO format must hold, so that neither training nor evaluation breaks on it."""

import json
from dataclasses import dataclass, field

from spark_bench.data.runs import MaskError, read_runs
from spark_bench.errors import InputError

# No picture has as many pixels a side; pycocotools draws a polygon's outline in memory, however far it reaches.
PIXEL_LIMIT = 10 ** 6
_NEEDED = {'images': ('id', 'file_name', 'width', 'height'), 'categories': ('id', 'name'),
           'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation')}
_DROP = 'correct it, or take it out of the file'
# From the kind of a fault to its remedy.
REMEDIES = {
    'format': 'export the annotations again in COCO format',
    'entry': 'export the annotations again in COCO format',
    'id': 'number the entries 1, 2, 3, …',
    'duplicate id': 'give every entry an id of its own',
    'duplicate name': 'list each picture once, with all its annotations',
    'reference': 'restore the entry that it names, or take it out of the file',
    'image entry': _DROP,
    'category entry': _DROP,
    'bbox': f'a box is [left, top, width, height] in pixels; {_DROP}',
    'area or crowd': f'area is a number of pixels and iscrowd 0 or 1; {_DROP}',
    'segmentation': f'a mask is polygons [[x, y, x, y, x, y, …], …] or RLE with size and counts; {_DROP}',
}


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


def read_annotations(path):
    """Read a JSON file.

    Returns:
        ``(bytes, contents)``.

    Raises:
        InputError: where it cannot be read or is not JSON.
    """
    try:
        raw = path.read_bytes()
        return raw, json.loads(raw)
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        reason = 'nested too deep' if isinstance(error, RecursionError) else error
        raise InputError(f'{path} is not JSON ({reason}): download it again') from error


def read_sound(path):
    """Read an annotation file and refuse what would break training or evaluation.

    Returns:
        ``(bytes, contents, entries)``, see :func:`examine`.

    Raises:
        InputError: one line that names the file, the first entry that is at fault and the remedy.
    """
    def refuse(kind, entry, what):
        where = f'{path}: {entry}' if entry else path
        raise InputError(f'{where} {what}: {REMEDIES[kind]}')

    raw, contents = read_annotations(path)
    return raw, contents, examine(contents, refuse)


def examine(contents, fault):
    """Look at every entry of an annotation file.

    Args:
        contents: what the JSON holds; anything.
        fault: called with ``(kind, where, what)`` for each fault that would break training or evaluation: a key of
            ``REMEDIES``, the entry such as ``annotations[3] (id 17)`` (empty for the whole file), and what is wrong
            with it. It may raise.

    Returns:
        :class:`Entries`, those without fault.
    """
    sound = Entries()
    if not isinstance(contents, dict):
        fault('format', '', 'is not in COCO format: expected an object with images, annotations and categories')
        return sound
    tables = {key: _table(contents, key, fault) for key in _NEEDED}
    # Of a known image with unusable values the size is None.
    sizes = {entry['id']: None for _, entry in tables['images']}
    for position, entry in tables['images']:
        what = _image_fault(entry)
        if what:
            fault('image entry', name_entry('images', position, entry), what)
        else:
            sound.images.append((position, entry))
            sizes[entry['id']] = entry['width'], entry['height']
    for position, entry in tables['categories']:
        if isinstance(entry['name'], str):
            sound.categories.append(entry)
        else:
            fault('category entry', name_entry('categories', position, entry), 'has a name that is not text')
    categories = {entry['id'] for _, entry in tables['categories']}
    for position, entry in tables['annotations']:
        faults = _annotation_faults(entry, sizes, categories)
        for kind, what in faults:
            fault(kind, name_entry('annotations', position, entry), what)
        if not faults:
            sound.annotations.append((position, entry))
    return sound


def name_entry(key, position, entry):
    """``annotations[3] (id 17)``."""
    return f'{key}[{position}] (id {shorten(entry["id"])})'


def shorten(value, length=60):
    """A value from a JSON file, whatever it is, as one short printable line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = f'a {type(value).__name__}'
    text = text.encode('ascii', 'backslashreplace').decode()
    return text if len(text) <= length else f'{text[:length - 1]}…'


def _table(contents, key, fault):
    """List of (position, entry) of one of the three lists: objects that have all keys and an id of their own."""
    if not isinstance(contents.get(key), list):
        fault('format', '', f'is not in COCO format: {key!r} is missing or not a list')
        return []
    if not contents[key]:
        fault('format', '', f'is of no use: {key!r} is empty')
    table, seen = [], set()
    for position, entry in enumerate(contents[key]):
        missing = [name for name in _NEEDED[key] if not isinstance(entry, dict) or name not in entry]
        if missing:
            fault('entry', f'{key}[{position}]', f'has no {missing[0]!r}')
        elif not _is_id(entry['id'], texts=key != 'annotations'):
            fault('id', f'{key}[{position}]', f'has id {shorten(entry["id"])}, not a whole number')
        elif table and type(entry['id']) is not type(table[0][1]['id']):
            fault('id', f'{key}[{position}]', f'has id {shorten(entry["id"])}: some ids are text, others numbers')
        elif entry['id'] in seen:
            fault('duplicate id', name_entry(key, position, entry), 'has the same id as another entry')
        else:
            seen.add(entry['id'])
            table.append((position, entry))
    return table


def _is_id(value, texts=True):
    # Evaluation keeps the ids of annotations as float64. Those of images and categories may be text.
    return type(value) is int and abs(value) < 2 ** 53 or texts and type(value) is str


def _image_fault(entry):
    name = entry['file_name']
    if not isinstance(name, str) or not name or '\0' in name:
        return f'has file_name {shorten(name)}, not a name'
    for side in ('width', 'height'):
        if type(entry[side]) is not int or not 0 < entry[side] < PIXEL_LIMIT:
            return f'has {side} {shorten(entry[side])}, not a number of pixels'
    return None


def _annotation_faults(entry, sizes, categories):
    """List of (kind, what)."""
    faults = []
    image, category = entry['image_id'], entry['category_id']
    if not _is_id(image) or image not in sizes:
        faults.append(('reference', f'names image_id {shorten(image)}, which is not among its images'))
    if not _is_id(category) or category not in categories:
        faults.append(('reference', f'names category_id {shorten(category)}, which is not among its categories'))
    box, area, crowd = entry['bbox'], entry['area'], entry['iscrowd']
    if type(box) is not list or len(box) != 4 or not all(map(_is_pixels, box)):
        faults.append(('bbox', f'has bbox {shorten(box)}, not four finite numbers'))
    if type(area) not in (int, float) or not abs(area) < PIXEL_LIMIT ** 2:
        faults.append(('area or crowd', f'has area {shorten(area)}, not a number'))
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        faults.append(('area or crowd', f'has iscrowd {shorten(crowd)}, not 0 or 1'))
    size = sizes.get(image) if _is_id(image) else None
    what = _segmentation_fault(entry['segmentation'], size)
    if what:
        faults.append(('segmentation', f'has a segmentation {what}'))
    return faults


def _is_pixels(value):
    return type(value) in (int, float) and -PIXEL_LIMIT < value < PIXEL_LIMIT


def _segmentation_fault(segmentation, size):
    """What is wrong with a mask, or None. ``size``: (width, height) of its picture, or None where that is unknown."""
    if type(segmentation) is list:
        return _polygons_fault(segmentation)
    if type(segmentation) is not dict:
        return f'that is {shorten(segmentation)}'
    try:
        (height, width), _ = read_runs(segmentation)
    except MaskError as error:
        return str(error)
    if size is not None and (width, height) != tuple(size):
        return f'of {width}x{height} pixels for a picture of {size[0]}x{size[1]}'
    return None


def _polygons_fault(polygons):
    if not polygons:
        return 'without a polygon'
    for number, polygon in enumerate(polygons):
        if type(polygon) is not list:
            return f'whose polygon {number} is {shorten(polygon)}, not a list of numbers'
        if len(polygon) % 2:
            return f'whose polygon {number} has {len(polygon)} coordinates, an odd number'
        # A short one behind a whole one is left out in training and harmless in evaluation.
        if not polygon or len(polygon) < 6 and number == 0:
            return f'whose polygon {number} has {len(polygon)} coordinates, fewer than 6'
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
