"""What detectors are trained and evaluated on: a folder in COCO layout, refused where it is broken before any training.

``spark-bench data check`` judges by the same functions: what one of them calls a problem, all do.
"""

import hashlib
import os
from pathlib import Path

from spark_bench.data.check.coco import Split, compare_splits, judge_split_files
from spark_bench.data.check.report import KINDS, PROBLEM, Report
from spark_bench.data.coco.near_names import NearNames, probably
from spark_bench.data.images.decoding import read_stated
from spark_bench.data.images.identity import contents_digest
from spark_bench.data.images.numbered import NameTable
from spark_bench.errors import InputError, printable

# Up to this many images a split is decoded as a whole beforehand. A larger one would take minutes; there a
# damaged image stops the run, by name, when it is first read.
DECODE_LIMIT = 2000
# Up to this many, their sizes are read: the val split of COCO has 5,000, and is used behind the training alone.
SIZE_LIMIT = 20000


def open_coco(root: Path | str) -> tuple[Split, Split]:
    """Find the train and val split of a folder in COCO layout and judge both annotation files.

    The layout is ``annotations/instances_<split>.json`` beside ``<split>/``, where ``<split>`` is
    ``train`` or ``val``, or either with a year (``train2017``).

    Returns:
        ``(train, val)``, of the same categories, though perhaps in another order.

    Raises:
        InputError: one line naming the file, what is wrong with it and the remedy.
    """
    train, val = _open(root, ('train', 'val'))
    return train, val


def open_split(root: Path | str, kind: str) -> Split:
    """Find one split, ``train`` or ``val``, alone; see :func:`open_coco`."""
    [split] = _open(root, (kind,))
    return split


def _open(root, kinds):
    """The split of each kind; the first problem that is found with any is raised as an error."""
    if not Path(root).is_dir():
        raise InputError(f'data root {root} is not a folder: give a folder in COCO layout with --data-root')
    report = Report(Path(root), 'coco', decoded=False)
    splits = [split for kind in kinds for split in judge_split_files(report, kind)]
    compare_splits(report, splits)
    finding = next((finding for kind, finding in report.findings.items() if KINDS[kind][0] == PROBLEM), None)
    if finding is None:
        return splits
    file, detail = finding.examples[0]
    apart = detail.startswith(('images[', 'categories[', 'annotations[', 'of '))
    more = f' (and {report.problems - 1} more: spark-bench data check {report.root})' if report.problems > 1 else ''
    raise InputError(printable(f'{report.root / file}{":" if apart else ""} {detail}: {finding.remedies[0]}{more}'))


def identify(split: Split) -> str:
    """SHA-256 over the annotation file of a split and the contents of its images, hex.

    Raises:
        InputError: naming an image that is not there.
    """
    _demand_images(split)
    contents = contents_digest(split.images, NameTable(split.sizes))
    return hashlib.sha256(f'{split.sha256} {contents}'.encode()).hexdigest()


def check_images(split: Split) -> None:
    """Check that every image of a :class:`Split` is there, whole and of the stated size.

    Raises:
        InputError: naming the file.
    """
    _demand_images(split)
    if split.count <= SIZE_LIMIT:
        for name, stated in split.sizes.items():
            read_stated(split.images / name, stated, f'{split.annotations.name} says', split.count <= DECODE_LIMIT)


def _demand_images(split):
    absent = [name for name in split.sizes if not os.path.isfile(split.images / name)]
    if absent:
        more = f' and {len(absent) - 1} more' if len(absent) > 1 else ''
        meant = probably(NearNames(split.images), absent[0])
        raise InputError(
            f'{split.annotations} names images that are not in {split.images}: '
            f'{printable(absent[0] + meant)[:300]}{more}; restore them, or take them out of the file'
        )
