"""Checking a folder in COCO layout: what its annotations say, then what the pictures are."""

from pathlib import Path

import numpy as np

from spark_bench.data.check.duplicates import Digests
from spark_bench.data.check.looking import Progress, judge, look_at_all
from spark_bench.data.check.report import Report
from spark_bench.data.coco import EXPECTED, annotation_files, compare_splits, judge_split_files
from spark_bench.data.listing import NameTable, is_picture, list_files
from spark_bench.data.near_names import NearNames
from spark_bench.errors import InputError

__all__ = ['EXPECTED', 'check_folder', 'fits']


def fits(root: Path) -> bool:
    """Whether ``root`` has annotation files of this layout."""
    return any(annotation_files(root, kind) for kind in ('train', 'val'))


def check_folder(report: Report, decode: bool, workers: int, progress: Progress) -> Digests:
    """Check everything but duplicate contents."""
    splits = [split for kind in ('train', 'val') for split in judge_split_files(report, kind)]
    compare_splits(report, splits)
    # Names and sizes in arrays: the processes that decode would copy objects.
    tables = [(split, NameTable([f'{split.pictures.name}/{name}' for name in split.sizes]),
               np.array(list(split.sizes.values()), np.int64).reshape(-1, 2)) for split in splits]
    digests = Digests([(split.kind, names) for split, names, _ in tables])
    for number, (split, names, sizes) in enumerate(tables):
        if not split.pictures.is_dir():
            continue
        near = NearNames(split.pictures)
        _check_unlisted(report, split, set(names), decode, workers, progress)
        for index, look in look_at_all(report.root, names, decode, workers, progress):
            digests.put(number, index, look.digest)
            judge(report, names[index], look, tuple(sizes[index].tolist()), near)
    return digests


def _check_unlisted(report, split, listed, decode, workers, progress):
    """Compare the folder with the list; pretraining reads the pictures that are not listed too."""
    try:
        found, _, passed = list_files(split.pictures, lambda name: True)
    except InputError as error:
        report.add('folder', split.pictures.name, str(error))
        return
    passed, unlisted = ([name for name in (f'{split.pictures.name}/{own}' for own in names) if name not in listed]
                        for names in (passed, found))
    for kind, names in (('leftover', passed), ('not listed', unlisted)):
        for name in names:
            report.add(kind, name)
    names = [name for name in unlisted if split.kind == 'train' and is_picture(name)]
    for index, look in look_at_all(report.root, names, decode, workers, progress):
        if look.wrong:
            report.add('unlisted picture', names[index], look.wrong)
