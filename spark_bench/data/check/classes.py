"""Checking a folder with train/<class>/ and val/<class>/, as ImageNet has it.

Which folders these are is decided as :func:`spark_bench.data.images.labelled.open_labelled` decides it: where there is
no ``val``, ``validation`` or ``test`` is what is evaluated on.
"""

import contextlib
import os
from pathlib import Path

from spark_bench.data.check.duplicates import Digests
from spark_bench.data.check.images import judge, look_at_all
from spark_bench.data.check.report import Report
from spark_bench.data.images.ignored import is_ignored, is_own
from spark_bench.data.images.listing import IMAGENET_CLASSES, WNID, is_image, list_files
from spark_bench.data.images.numbered import NameTable
from spark_bench.data.images.splits import find_splits
from spark_bench.errors import InputError

EXPECTED = 'train/<class>/ and val/<class>/'
_IMAGENET = {'train': 1_281_167, 'val': 50_000}


def fits(root: Path) -> bool:
    """Whether ``root`` has folders of classes."""
    return any(_has_folders(root / folder) for folder in _split_folders(root).values())


def _split_folders(root):
    """From ``train`` and ``val`` to the names of their folders, there or not."""
    try:
        with os.scandir(root) as listing:
            found = find_splits([entry.name for entry in listing if _is_folder(entry) and not is_ignored(entry.name)])
    except OSError:
        found = (None, None)
    return {split: folder or split for split, folder in zip(_IMAGENET, found, strict=True)}


def _has_folders(folder):
    try:
        return any(entry.is_dir() and not is_ignored(entry.name) for entry in os.scandir(folder))
    except OSError:
        return False


def check_folder(report: Report, workers: int) -> Digests:
    """Check everything but duplicate contents."""
    classes, parts, folders = {}, [], _split_folders(report.root)
    for split, folder in folders.items():
        classes[split], names = _list_split(report, folder)
        parts.append((split, names))
        report.splits[split] = {'images': len(names), 'classes': len(classes[split])}
    for name in sorted(classes['train'] ^ classes['val']):
        split = 'train' if name in classes['train'] else 'val'
        report.add('classes differ', f'{folders[split]}/{name}', f'in {folders[split]} only')
    _compare_with_imagenet(report, classes)
    digests = Digests(parts)
    for number, (_, names) in enumerate(parts):
        for index, look in look_at_all(report, names, workers):
            digests.put(number, index, look.digest)
            judge(report, names[index], look)
    return digests


def _list_split(report, split):
    """(set of classes, names of images relative to the root) of one split."""
    folder, classes, images = report.root / split, set(), []
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        report.add('folder', split, error.strerror)
        return classes, NameTable([])
    for entry in entries:
        if is_ignored(entry.name) or _is_folder(entry) and is_own(entry.path):
            report.add('leftover', f'{split}/{entry.name}')
        elif _is_folder(entry):
            classes.add(entry.name)
            images += _list_class(report, f'{split}/{entry.name}')
        elif os.path.exists(entry.path):
            report.add('outside of classes' if is_image(entry.name) else 'not an image', f'{split}/{entry.name}')
    with contextlib.suppress(InputError):  # which was told of the class
        found = list_files(folder, lambda own: False)
        for name in found.dangling:
            report.add('link', f'{split}/{name}')
        for name, first in found.again:
            if name.split('/')[0] != first.split('/')[0]:
                report.add('two classes', f'{split}/{name}', f'is {split}/{first}')
    if len(classes) < 2:
        report.add('few classes', split, f'{len(classes)} class folders')
    return classes, NameTable(images)


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _list_class(report, name):
    """Names of images of one class, at any depth, relative to the root."""
    try:
        found, passed, *_ = list_files(report.root / name, lambda own: True)
    except InputError as error:
        report.add('folder', name, str(error))
        return []
    for own in passed:
        report.add('leftover', f'{name}/{own}')
    images = [f'{name}/{file}' for file in found if is_image(file)]
    for file in found:
        if not is_image(file):
            report.add('not an image', f'{name}/{file}')
    if not images:
        report.add('empty class', name)
    return images


def _compare_with_imagenet(report, classes):
    names = classes['train'] | classes['val']
    if not names or not all(map(WNID.fullmatch, names)):
        return
    if len(names) != IMAGENET_CLASSES:
        report.add('ImageNet subset', '.', f'{len(names):,} classes, ImageNet-1k has {IMAGENET_CLASSES:,}')
        return
    for split, expected in _IMAGENET.items():
        count = report.splits[split]['images']
        if count != expected:
            # A subset on purpose is a small part; a copy that broke off is most of it.
            kind = 'ImageNet count' if count > expected / 2 else 'ImageNet subset'
            report.add(kind, split, f'{count:,} images, ImageNet-1k has {expected:,}')
