"""Checking a folder in COCO layout."""

import os
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from spark_bench.data.annotations import examine, name_entry, read_annotations, shorten
from spark_bench.data.check.duplicates import Digests
from spark_bench.data.check.looking import judge, look_at_all
from spark_bench.data.check.shapes import judge_shapes
from spark_bench.data.listing import NameTable, list_files
from spark_bench.errors import InputError

EXPECTED = 'annotations/instances_train*.json and annotations/instances_val*.json'


@dataclass
class _Split:
    """What is kept of one annotation file: names relative to the root, and stated sizes."""

    kind: str
    folder: str
    names: NameTable
    sizes: np.ndarray
    ids: set = field(default_factory=set)
    categories: tuple = ()


def fits(root):
    """Whether ``root`` has annotation files of this layout."""
    return any(_annotation_files(root, kind) for kind in ('train', 'val'))


def _annotation_files(root, kind):
    return sorted(root.glob(f'annotations/instances_{kind}*.json'))


def check_folder(report, decode, workers, progress):
    """Check everything but duplicate contents. Returns :class:`~spark_bench.data.check.duplicates.Digests`."""
    splits = []
    for kind in ('train', 'val'):
        files = _annotation_files(report.root, kind)
        if not files:
            report.add('split absent', f'annotations/instances_{kind}*.json', 'no such file')
        elif len(files) > 1:
            report.add('several files', f'annotations/instances_{kind}*.json', ', '.join(file.name for file in files))
        splits += [_check_annotations(report, kind, file) for file in files]
    _compare(report, splits)
    digests = Digests([(split.kind, split.names) for split in splits])
    for number, split in enumerate(splits):
        if _check_listing(report, split):
            for index, look in look_at_all(report.root, split.names, decode, workers, progress):
                digests.put(number, index, look.digest)
                judge(report, split.names[index], look, tuple(split.sizes[index].tolist()))
    return digests


def _check_annotations(report, kind, file):
    name, folder = f'annotations/{file.name}', file.stem.removeprefix('instances_')
    split = _Split(kind, folder, NameTable([]), np.zeros((0, 2), np.int64))
    counts = report.splits[folder] = {'pictures': 0, 'annotations': 0, 'categories': 0}
    try:
        _, contents = read_annotations(file)
    except InputError as error:
        report.add('not readable', name, str(error).removeprefix(f'{file} '))
        return split
    entries = examine(contents, lambda fault, entry, what: report.add(fault, name, f'{entry} {what}'.strip()))
    counts.update(pictures=len(entries.images), annotations=len(entries.annotations),
                  categories=len(entries.categories))
    split.categories = tuple(entry['name'] for entry in entries.categories)
    split.ids = {entry['id'] for _, entry in entries.images}
    for category, times in Counter(split.categories).items():
        if times > 1:
            report.add('duplicate category', name, shorten(category))
    _check_objects(report, name, entries)
    _take_names(report, name, split, entries.images)
    return split


def _check_objects(report, file, entries):
    sizes = {entry['id']: (entry['width'], entry['height']) for _, entry in entries.images}
    used, annotated, seen = set(), set(), set()
    for position, entry in entries.annotations:
        used.add(entry['category_id'])
        annotated.add(entry['image_id'])
        found = judge_shapes(entry, sizes[entry['image_id']]) if entry['image_id'] in sizes else []
        if entry['id'] == 0:
            found.append(('annotation id 0', ''))
        key = hash((entry['image_id'], entry['category_id'], *entry['bbox']))
        if key in seen:
            found.append(('same annotation', 'repeats another'))
        seen.add(key)
        for kind, detail in found:
            report.add(kind, file, f'{name_entry("annotations", position, entry)} {detail}')
    for category in entries.categories:
        if category['id'] not in used:
            report.add('unused category', file, shorten(category['name']))
    for position, image in entries.images:
        if image['id'] not in annotated:
            report.add('no annotation', file, f'{name_entry("images", position, image)} {shorten(image["file_name"])}')


def _take_names(report, file, split, images):
    """Fill in names and sizes with the pictures that may be opened, each once."""
    taken = {}
    for position, image in images:
        name, where = image['file_name'], name_entry('images', position, image)
        if not _is_inside(name):
            report.add('file name', file, f'{where} has file_name {shorten(name)}')
        elif os.path.normpath(name) in taken:
            report.add('duplicate name', file, f'{where} has the file_name {shorten(name)} of another')
        else:
            taken[os.path.normpath(name)] = image['width'], image['height']
    split.names = NameTable([f'{split.folder}/{name}' for name in taken])
    split.sizes = np.array(list(taken.values()), np.int64).reshape(-1, 2)


def _is_inside(name):
    try:
        parts = os.fsencode(os.path.normpath(name)).split(b'/')
    except UnicodeEncodeError:
        return False
    return bool(parts[0]) and parts[0] not in (b'..', b'.') and all(len(part) < 256 for part in parts)


def _compare(report, splits):
    """What train and val must have in common, and must not."""
    pairs = {split.kind: split for split in reversed(splits)}
    if len(pairs) < 2:
        return
    train, val = pairs['train'], pairs['val']
    for name in sorted(set(train.categories) ^ set(val.categories)):
        report.add('categories differ', 'annotations', f'{shorten(name)} is in only one of train and val')
    if set(train.categories) == set(val.categories) and train.categories != val.categories:
        report.add('categories differ', 'annotations', 'the same ones in another order')
    own = {name.removeprefix(f'{train.folder}/') for name in train.names}
    for name in val.names:
        if name.removeprefix(f'{val.folder}/') in own:
            report.add('shared name', name)
    for identity in sorted(train.ids & val.ids, key=str):
        report.add('shared id', f'annotations/instances_{val.folder}.json', shorten(identity))


def _check_listing(report, split):
    """Compare the folder with the list. Returns whether there is a folder."""
    folder = report.root / split.folder
    if not folder.is_dir():
        report.add('folder', split.folder, 'is not a folder')
        return False
    try:
        found, _, passed = list_files(folder, lambda name: True)
    except InputError as error:
        report.add('folder', split.folder, str(error))
        return True
    listed = set(split.names)
    for kind, names in (('leftover', passed), ('not listed', found)):
        for name in names:
            if f'{split.folder}/{name}' not in listed:
                report.add(kind, f'{split.folder}/{name}')
    return True
