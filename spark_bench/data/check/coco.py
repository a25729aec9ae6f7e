"""Checking a folder in COCO layout: what its annotations say, then what the images are."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spark_bench.data.check.duplicates import Digests
from spark_bench.data.check.images import judge, look_at_all
from spark_bench.data.check.report import Report
from spark_bench.data.check.shapes import judge_shapes
from spark_bench.data.coco.annotations import Entries, examine, name_entry, read_annotations, shorten
from spark_bench.data.coco.cleaning import entries_of
from spark_bench.data.coco.filtering import FEW, MANY, judge_counts, why_left_out
from spark_bench.data.coco.near_names import NearNames
from spark_bench.data.coco.rle import read_masks
from spark_bench.data.images.listing import is_image, list_files
from spark_bench.data.images.numbered import NameTable
from spark_bench.errors import InputError

EXPECTED = 'annotations/instances_train*.json and annotations/instances_val*.json'
# The recipes for COCO leave smaller images out of training, as mmdet's do.
SMALLEST_SIDE = 32


@dataclass(frozen=True)
class Split:
    """One split of a COCO data set.

    Attributes:
        kind: ``train`` or ``val``.
        annotations: JSON file.
        images: folder that its ``file_name`` entries are relative to.
        categories: names in the order of the file.
        category_ids: their ids.
        sizes: from ``file_name`` to (width, height).
        objects: from ``file_name`` to how many objects training can learn from, of images with an annotation.
        labels: from ``file_name`` to the categories of those objects, of images that have any.
        sha256: of the annotation file, hex.
        masks: whether its objects have masks, and not boxes alone.
    """

    kind: str
    annotations: Path
    images: Path
    categories: tuple[str, ...] = ()
    category_ids: tuple = ()
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    sha256: str = ''
    labels: dict[str, set[str]] = field(default_factory=dict)
    masks: bool = True

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.sizes)

    def trained(self, smallest_side: int = 0, with_objects: bool = True) -> list[str]:
        """The images that training takes.

        Args:
            smallest_side: of an image, in pixels.
            with_objects: leave out images without an annotation.
        """
        return [
            name
            for name, size in self.sizes.items()
            if min(size) >= smallest_side and (name in self.objects or not with_objects)
        ]


def fits(root: Path) -> bool:
    """Whether ``root`` has annotation files of this layout."""
    return any(annotation_files(root, kind) for kind in ('train', 'val'))


def check_folder(report: Report, workers: int) -> Digests:
    """Check everything but duplicate contents."""
    splits = [split for kind in ('train', 'val') for split in judge_split_files(report, kind)]
    compare_splits(report, splits)
    # Names and sizes in arrays: the processes that decode would copy objects.
    tables = [
        (
            split,
            NameTable([f'{split.images.name}/{name}' for name in split.sizes]),
            np.array(list(split.sizes.values()), np.int64).reshape(-1, 2),
        )
        for split in splits
    ]
    digests = Digests([(split.kind, names) for split, names, _ in tables])
    for number, (split, names, sizes) in enumerate(tables):
        if not split.images.is_dir():
            continue
        near = NearNames(split.images)
        _check_unlisted(report, split, set(names), workers)
        for index, look in look_at_all(report, names, workers):
            digests.put(number, index, look.digest)
            judge(report, names[index], look, tuple(sizes[index].tolist()), near)
    return digests


def _check_unlisted(report, split, listed, workers):
    """Compare the folder with the list; pretraining reads the images that are not listed too."""
    try:
        found, passed, *_ = list_files(split.images, lambda name: True)
    except InputError as error:
        report.add('folder', split.images.name, str(error))
        return
    passed, unlisted = (
        [name for name in (f'{split.images.name}/{own}' for own in names) if name not in listed]
        for names in (passed, found)
    )
    for kind, names in (('leftover', passed), ('not listed', unlisted)):
        for name in names:
            report.add(kind, name)
    names = [name for name in unlisted if split.kind == 'train' and is_image(name)]
    for index, look in look_at_all(report, names, workers):
        if look.wrong:
            report.add('unlisted image', names[index], look.wrong)


def annotation_files(root: Path, kind: str) -> list[Path]:
    """The annotation files of a split."""
    return sorted((root / 'annotations').glob(f'instances_{kind}*.json'))


def judge_split_files(report: Report, kind: str) -> list[Split]:
    """Judge the annotation files of a split, of which there should be one; report what is wrong."""
    files = annotation_files(report.root, kind)
    wanted = f'annotations/instances_{kind}*.json'
    if not files:
        report.add('split absent', wanted, 'is not there')
    elif len(files) > 1:
        report.add('several files', wanted, f'are {len(files)} files: {", ".join(file.name for file in files)}')
    return [judge_split(report, kind, file) for file in files]


def judge_split(report: Report, kind: str, file: Path) -> Split:
    """Judge one annotation file; report what is wrong, and return the rest."""
    name, folder = f'annotations/{file.name}', file.stem.removeprefix('instances_')
    counts = report.splits[folder] = {'images': 0, 'annotations': 0, 'usable': 0, 'categories': 0}
    if not (report.root / folder).is_dir():
        report.add('folder', folder, f'is not a folder: put the images of {file.name} there')
    try:
        read = read_annotations(file, lambda change, where, what: report.add(change, name, f'{where} {what}'))
    except InputError as error:
        what, _, remedy = str(error).removeprefix(f'{file} ').rpartition(': ')
        report.add('not readable', name, what or remedy, remedy=remedy)
        return Split(kind, file, report.root / folder)
    entries = examine(
        read.contents, lambda fault, entry, what: report.add(fault, name, f'{entry} {what}'.strip()), read.masks
    )
    names = tuple(entry['name'] for entry in entries.categories)
    for category, times in Counter(names).items():
        if times > 1:
            report.add('duplicate category', name, f'has {times} categories of the name {shorten(category)}')
    by_id = _take_names(report, name, folder, entries.images)
    objects, labels = _judge_objects(report, name, entries, by_id, read.contents)
    counts.update(
        images=len(entries.images),
        annotations=len(entries.annotations),
        usable=sum(objects.values()),
        categories=len(names),
    )
    sizes = {
        by_id[entry['id']]: (entry['width'], entry['height']) for _, entry in entries.images if entry['id'] in by_id
    }
    return Split(
        kind,
        file,
        report.root / folder,
        names,
        tuple(entry['id'] for entry in entries.categories),
        sizes,
        objects,
        read.sha256,
        labels,
        read.masks,
    )


def _take_names(report, file, folder, images):
    """From image id to file name, of images that may be opened, each once."""
    taken, seen = {}, set()
    for position, image in images:
        name, where = image['file_name'], name_entry('images', position, image)
        if not _is_inside(name):
            report.add('file name', file, f'{where} has file_name {shorten(name)}')
        elif os.path.normpath(name) in seen:
            report.add('duplicate name', file, f'{where} has the file_name {shorten(name)} of another')
        else:
            seen.add(os.path.normpath(name))
            taken[image['id']] = name
            if min(image['width'], image['height']) < SMALLEST_SIDE:
                report.add('small image', f'{folder}/{name}', f'is {image["width"]}x{image["height"]}')
    return taken


def _is_inside(name):
    try:
        parts = os.fsencode(os.path.normpath(name)).split(b'/')
    except UnicodeEncodeError:
        return False
    return bool(parts[0]) and parts[0] not in (b'..', b'.') and all(len(part) < 256 for part in parts)


def _judge_objects(report, file, entries: Entries, names, contents):
    """From file name to how many objects are of use, of images that have an annotation, and to their categories."""
    sizes = {entry['id']: (entry['width'], entry['height']) for _, entry in entries.images}
    used, seen = set(), set()
    objects: dict[str, int] = {}
    labels: dict[str, set[str]] = {}
    categories = {entry['id']: entry['name'] for entry in entries.categories}
    reasons: Counter[str | None] = Counter()
    apart = 0
    masks = read_masks(entry['segmentation'] for _, entry in entries.annotations)
    for (position, entry), mask in zip(entries.annotations, masks, strict=True):
        used.add(entry['category_id'])
        where = name_entry('annotations', position, entry)
        key = hash((entry['image_id'], entry['category_id'], *entry['bbox']))
        if key in seen:
            report.add('same annotation', file, f'{where} repeats another')
        seen.add(key)
        if entry['image_id'] not in sizes:
            continue
        size = sizes[entry['image_id']]
        for kind, detail in judge_shapes(entry, mask, size):  # type: ignore[arg-type]  # no damaged mask is left
            report.add(kind, file, f'{where} {detail}')
            apart += kind == 'box and mask'
        reason = why_left_out(entry, size)
        reasons[reason] += 1
        if entry['image_id'] in names:
            name = names[entry['image_id']]
            objects[name] = objects.get(name, 0) + (reason is None)
            if reason is None:
                labels.setdefault(name, set()).add(categories.get(entry['category_id'], ''))
    _judge_all(report, file, reasons, apart)
    # Those of a malformed annotation too, which is a finding of its own.
    named = (entry.get('image_id') for _, entry in entries_of(contents, 'annotations'))
    annotated = {identity for identity in named if type(identity) in (int, str)}
    for category in entries.categories:
        if category['id'] not in used:
            report.add('unused category', file, shorten(category['name']))
    for position, image in entries.images:
        if image['id'] not in annotated:
            report.add('no annotation', file, f'{name_entry("images", position, image)} {shorten(image["file_name"])}')
    return objects, labels


def _judge_all(report, file, reasons, apart):
    """What is wrong with so many annotations that it is no accident of entries."""
    judged, total = judge_counts(reasons), reasons.total()
    if judged:
        report.add(judged[0], file, judged[1], remedy=judged[2])
    elif reasons['crowds'] > max(MANY * total, FEW):
        report.add('many crowds', file, f'of {total:,} annotations {reasons["crowds"]:,} are crowds')
    if apart > max(total / 2, FEW):
        report.add(
            'masks elsewhere', file, f'of {total:,} annotations {apart:,} have a mask that hardly overlaps their box'
        )


def compare_splits(report: Report, splits: list[Split]) -> None:
    """What train and val must have in common, and must not."""
    pairs = {split.kind: split for split in reversed(splits)}
    if len(pairs) < 2 or not all(split.categories for split in pairs.values()):
        return
    train, val = pairs['train'], pairs['val']
    for name in sorted(set(train.categories) ^ set(val.categories)):
        where = 'train' if name in train.categories else 'val'
        report.add(
            'categories differ',
            f'annotations/{val.annotations.name}',
            f'names other categories than {train.annotations.name}: {shorten(name)} is in {where} only',
        )
    for name in val.sizes:
        if name in train.sizes:
            report.add('shared name', f'{val.images.name}/{name}')
