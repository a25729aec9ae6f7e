"""What annotation files leave out or write otherwise, brought to what COCO's own files say.

Exporters leave out what COCO's files repeat (LVIS and VIA have no ``iscrowd``, LVIS no ``file_name``, others no
``area``), write whole numbers
as ``1.0`` (pandas), and add an empty polygon. None of it leaves any doubt, so every reader gets the same entries.
"""

from collections.abc import Callable

from spark_bench.data.coco.masks import SHORTEST_POLYGON, mask_area, mask_extent
from spark_bench.data.coco.rle import read_masks

# Takes the kind of a finding, the entry that it is of, and what was found.
Note = Callable[[str, str, str], None]
# Evaluation keeps the ids of annotations as float64, and takes a match with id 0 for none.
_LARGEST_ID = 2**53
_WHOLE = {
    'images': ('id', 'width', 'height'),
    'categories': ('id',),
    'annotations': ('id', 'image_id', 'category_id', 'iscrowd'),
}


def clean(contents: object, note: Note = lambda kind, where, what: None) -> bool:
    """Clean the contents of an annotation file, in place; what is not as it should be stays, for others to judge.

    A missing ``file_name`` is the last part of ``coco_url``. Whole numbers become int, ids that annotations write as
    text where others are numbers too; a polygon alone becomes a list of one; a missing ``iscrowd`` 0, a missing
    ``area`` or ``bbox`` the mask's, an ``area`` without mask the box's; polygons of fewer than 6 coordinates beside a
    whole one go, as do categories without annotation that have the name of one with some; annotations whose ids
    evaluation cannot hold (0, text, from 2^53 on, or none) are numbered 1, 2, 3, …

    Args:
        contents: what the JSON holds; anything.
        note: called with ``(kind, where, what)`` for each change: a kind of
            :data:`spark_bench.data.check.report.KINDS`, such as ``annotations[3]``, and what was found.

    Returns:
        whether the annotations are to have masks. Where none has one, they are boxes alone: ``segmentation`` is then
        an empty list in all.
    """
    for key, names in _WHOLE.items():
        for position, entry in entries_of(contents, key):
            for name in names:
                value = entry.get(name)
                if type(value) is float and value.is_integer():
                    entry[name] = int(value)
                    note('whole number', f'{key}[{position}]', f'has {name} {value}')
    for position, entry in entries_of(contents, 'images'):
        url = entry.get('coco_url')
        if 'file_name' not in entry and isinstance(url, str):
            entry['file_name'] = url.rpartition('/')[2]
            note('no file name', f'images[{position}]', f'has no file_name, and coco_url {url:.80}')
    annotations = entries_of(contents, 'annotations')
    _refer_alike(contents, annotations, note)
    _drop_unused_twins(contents, annotations, note)
    with_masks = any(entry.get('segmentation') not in (None, []) for _, entry in annotations)
    if annotations and not with_masks:
        note('boxes alone', 'annotations', 'have no masks')
        for _, entry in annotations:
            entry['segmentation'] = []
    masks = read_masks(entry.get('segmentation') if _lacks(entry) else None for _, entry in annotations)
    for (position, entry), mask in zip(annotations, masks, strict=True):
        _complete(entry, mask, f'annotations[{position}] (id {entry.get("id")!r:.40})', note)
    if annotations and len(annotations) == len(contents['annotations']):  # type: ignore[index]  # a dict, with entries
        _number([entry for _, entry in annotations], note)
    return with_masks


def entries_of(contents: object, key: str) -> list[tuple[int, dict]]:
    """``(position, entry)`` of what are objects in a list of an annotation file; none where it has no such list."""
    listed = contents.get(key) if isinstance(contents, dict) else None
    return (
        [(position, entry) for position, entry in enumerate(listed) if isinstance(entry, dict)]
        if isinstance(listed, list)
        else []
    )


def _refer_alike(contents, annotations, note):
    """Ids that annotations write as text, and images and categories as numbers, become numbers; or the other way."""
    for table, key in (('images', 'image_id'), ('categories', 'category_id')):
        known = {entry['id'] for _, entry in entries_of(contents, table) if type(entry.get('id')) in (int, str)}
        if len({*map(type, known)}) != 1:
            continue
        written = {str(identity): identity for identity in known}
        for position, entry in annotations:
            stated = entry.get(key)
            if type(stated) in (int, str) and stated not in known and str(stated) in written:
                note('whole number', f'annotations[{position}]', f'has {key} {stated!r}')
                entry[key] = written[str(stated)]


def _drop_unused_twins(contents, annotations, note):
    """Categories without annotation that have the name of another go: Roboflow lists the project among its classes."""
    used = {entry['category_id'] for _, entry in annotations if type(entry.get('category_id')) in (int, str)}
    listed = [each for each in entries_of(contents, 'categories') if type(each[1].get('id')) in (int, str)]
    names = {str(entry.get('name')) for _, entry in listed if entry['id'] in used}
    for position, entry in listed:
        if entry['id'] not in used and str(entry.get('name')) in names:
            contents['categories'].remove(entry)
            note(
                'unused category',
                f'categories[{position}]',
                f'has the name of another, {entry["name"]!r:.40}: left out',
            )


def _lacks(entry):
    return entry.get('area') is None or entry.get('bbox') is None


def _complete(entry, mask, where, note):
    if entry.get('iscrowd') is None:
        note('no crowd flag', where, 'has no iscrowd')
        entry['iscrowd'] = 0
    _drop_short(entry, where, note)
    for name, kind, find in (('area', 'no area', mask_area), ('bbox', 'no box', _mask_box)):
        if entry.get(name) is None and 'segmentation' in entry:
            try:
                if entry['segmentation']:
                    value = find(entry['segmentation'] if type(mask) is list else mask)
                else:  # boxes alone, or a mask that is missing, which is told as such
                    value = entry['bbox'][2] * entry['bbox'][3] if name == 'area' else None
            except (TypeError, ValueError, AttributeError, LookupError, OverflowError):
                continue  # a malformed mask, which is told as such
            if value is not None:
                note(kind, where, f'has no {name}')
                entry[name] = value


def _mask_box(mask):
    extent = mask_extent(mask)
    return extent and [extent[0], extent[1], extent[2] - extent[0], extent[3] - extent[1]]


def _drop_short(entry, where, note):
    polygons = entry.get('segmentation')
    if type(polygons) is list and len(polygons) >= SHORTEST_POLYGON and {*map(type, polygons)} <= {int, float}:
        note('bare polygon', where, 'has a segmentation of numbers')
        polygons = entry['segmentation'] = [polygons]
    if type(polygons) is not list or not all(type(one) is list for one in polygons):
        return
    # Of pairs [x, y] there may be any number: those are judged as they are.
    whole = [one for one in polygons if len(one) >= SHORTEST_POLYGON or one and type(one[0]) is list]
    if whole and len(whole) < len(polygons):
        note('short polygon', where, f'has a polygon of fewer than {SHORTEST_POLYGON} coordinates')
        entry['segmentation'] = whole


def _number(annotations, note):
    """Number annotations anew where evaluation cannot hold their ids; ids that cannot tell them apart stay."""
    ids = [entry.get('id') for entry in annotations]
    kinds = {type(identity) for identity in ids}
    if kinds <= {int} and min(map(abs, ids)) > 0 and max(map(abs, ids)) < _LARGEST_ID:
        return
    if kinds != {type(None)} and (not kinds <= {int, str} or len(set(ids)) < len(ids)):
        return
    for number, entry in enumerate(annotations, start=1):
        held = type(entry.get('id')) is int and 0 < abs(entry['id']) < _LARGEST_ID
        if not held:
            note('annotation id', f'annotations[{number - 1}]', f'(id {entry.get("id")!r:.40})')
        entry['id'] = number
