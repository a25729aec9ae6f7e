"""Images with classes, in two splits: folders, tar shards and zip archives, by their layout.

Source of the class of each: :mod:`spark_bench.data.images.labels`.
"""

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from spark_bench.data.images.archives import TarShards, ZipArchive
from spark_bench.data.images.ignored import is_ignored, is_own
from spark_bench.data.images.labels import (
    LAYOUT,
    LabelledImages,
    class_of,
    demand_classes,
    label_members,
    number_classes,
    with_classes_sorted,
)
from spark_bench.data.images.sources import COMPRESSED, ImageFiles, compressed, list_data
from spark_bench.data.images.splits import (
    below_splits,
    find_splits,
    shard_split,
    splits_within_classes,
    without_wrapper,
)
from spark_bench.errors import InputError, printable

# Of a data set without splits, this part of each class is held out, drawn with this seed.
HELD_OUT, _HELD_OUT_SEED = 0.2, 0


def open_labelled(root: Path | str) -> tuple[LabelledImages, LabelledImages]:
    """Open a data set for classification.

    Args:
        root: one of

            * a folder with ``train/<class>/`` and ``val/<class>/``, images at any depth below; where there is no
              ``val``, ``validation`` or ``test`` is what is evaluated on;
            * a ``.zip`` of such a folder;
            * a folder of uncompressed tar shards, train and val told apart by file or folder name
              (``train-0000.tar``, ``val/0000.tar``), whose members are ``<class>/<name>.jpg``, or ``<key>.jpg`` beside
              ``<key>.cls`` with the number or name of the class, as webdataset writes them, or of one tar a class of
              ImageNet (``train/n01440764.tar``), as its authors pack it;
            * any of these without splits: a fifth of each class's images is held out, the same at every call.

    Returns:
        ``(train, val)``, two :class:`LabelledImages` of the same classes.

    Raises:
        InputError: one line naming what is wrong.
    """
    root = Path(root)
    try:
        parts = _open_parts(root)
        demand_classes(parts)
        if len(parts) == 1:
            parts = _hold_out(root, parts[0])
            _tell_held_out(root, parts)
    except InputError as error:
        # It names files, whose names may hold a line break.
        raise InputError(printable(error)) from error
    train, val = map(with_classes_sorted, parts)
    return train, val


def open_evaluation(root: Path | str, trained_on: str | None = None) -> LabelledImages:
    """Open what a trained classifier is evaluated on: the split that is held out, with train beside it or without.

    Args:
        root: as for :func:`open_labelled`; of a data set without splits, all images, with a warning, but for those
            that a training on them has seen.
        trained_on: :func:`fingerprint` of what the classifier was trained on.

    Returns:
        its images; their classes may be some of those that the classifier tells apart.

    Raises:
        InputError: one line naming what is wrong.
    """
    root = Path(root)
    try:
        part = _open_parts(root, lone=True)[-1]
        demand_classes([part])
        if part.place == str(root):
            part = _not_seen(root, part, trained_on)
    except InputError as error:
        raise InputError(printable(error)) from error
    return with_classes_sorted(part)


def fingerprint(train: LabelledImages, val: LabelledImages) -> str:
    """SHA-256 over classes, images and labels of both splits, hex; it depends on no place outside the data root."""
    digest = hashlib.sha256(b'\0'.join(os.fsencode(name) for name in train.classes))
    for split in (train, val):
        digest.update(split.source.fingerprint().encode())
        digest.update(split.labels.astype('<i8').tobytes())
    return digest.hexdigest()


def draw_subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw a share of each class.

    Args:
        labels: (N,) whole numbers.
        fraction: above 0, up to 1. Of a class with n images, n × fraction are drawn, halves rounded up, at least
            one. For one seed, a smaller fraction draws a part of what a larger one draws.
        seed: 0 … 2^32 - 1. What is drawn of a class depends on it, the class's number and its images alone.

    Returns:
        sorted indices, int64.

    Raises:
        InputError: for another fraction.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise InputError(f'fraction {fraction!r} of the labels: give a number above 0, up to 1')
    labels = np.asarray(labels)
    order = np.argsort(labels, kind='stable')
    classes, starts = np.unique(labels[order], return_index=True)
    drawn = []
    for number, members in zip(classes, np.split(order, starts[1:]), strict=True):
        # This generator's stream is frozen for good, unlike that of numpy's newer ones.
        shuffled = np.random.RandomState([seed, int(number)]).permutation(members)
        drawn.append(shuffled[: max(1, _round_half_up(len(members) * fraction))])
    return np.sort(np.concatenate(drawn)).astype(np.int64) if drawn else np.zeros(0, dtype=np.int64)


def _round_half_up(value):
    # 0.15 * 10 is below 1.5 in binary: a share is as exact as it was written.
    return int(np.floor(round(value, 9) + 0.5))


def _open_parts(root, lone=False):
    """One :class:`LabelledImages` where the data set has no splits, else two; ``lone`` opens what is held out alone."""
    if root.is_dir():
        return _open_folder(root, lone)
    if not root.exists():
        raise InputError(f'data root {root} does not exist: {LAYOUT}')
    name = root.name.lower()
    if name.endswith('.zip'):
        return _open_archive(root, ZipArchive(root, skip_held_out=False), lone)
    if name.endswith('.tar'):
        return _open_archive(root, TarShards([root], skip_held_out=False), lone)
    if name.endswith(COMPRESSED):
        raise compressed(root)
    raise InputError(f'data root {root} is neither a folder nor a .tar or .zip file: {LAYOUT}')


def _open_folder(root, lone):
    splits = find_splits(_folders(root))
    if all(splits):
        return [_open_split(root, name) for name in splits[lone:]]
    images, shards = _list(root)
    if shards:
        return _open_shards(root, shards, lone)
    splits = _splits_to_read(root, images, lone)
    return [_open_split(root, name) for name in splits] or [_open_classes(root, '', images)]


def _open_split(root, split):
    images, shards = _list(root / split)
    if shards:
        return _label_shards(f'{root / split}', [root / split / name for name in shards])
    return _open_classes(root, f'{split}/', images)


def _list(folder):
    """``(images, shards)`` below a folder of classes, one of them empty."""
    images, shards, again = list_data(folder)
    for name, first in again:
        if name.split('/')[0] != first.split('/')[0]:
            raise InputError(
                f'{folder / name} and {folder / first} are one folder, by a link, and its images would be of two '
                'classes: remove one of the two'
            )
    return images, shards


def _folders(folder):
    try:
        with os.scandir(folder) as listing:
            return [entry.name for entry in listing if not is_ignored(entry.name) and entry.is_dir()]
    except OSError as error:
        raise InputError(f'folder {folder} cannot be read: {error.strerror}') from error


def _open_classes(root, prefix, images):
    """The part of images in one folder a class; ``images`` are relative to ``prefix``, which ends in a slash."""
    place = str(root / prefix)
    source = ImageFiles(root, (prefix + name for name in images))
    part = number_classes(place, source, (class_of(place, name) for name in images))
    empty = sorted(
        name for name in set(_folders(root / prefix)).difference(part.classes) if not is_own(root / prefix / name)
    )
    if empty:
        raise InputError(f'class folder {root / prefix / empty[0]} holds no image: fill it, or take it out')
    return part


def _open_shards(root, names, lone):
    """The parts of a folder of shards, told apart by their names, or else by the folders in them."""
    splits = {}
    for name in names:
        splits.setdefault(shard_split(name), []).append(name)
    if set(splits) == {None}:
        return _open_archive(root, TarShards([root / name for name in names], skip_held_out=False), lone)
    if None in splits:
        raise InputError(
            f'shard {root / splits[None][0]} is of no split by its name, others are: name it train-… or '
            'val-…, or take it out'
        )
    held_out = 'val' if 'val' in splits else 'test'
    for name, other in () if lone and held_out in splits else (('train', held_out), (held_out, 'train')):
        if name not in splits:
            raise InputError(f'{root} holds {other} shards only: add {"val" if name == "test" else name} shards')
    return [
        _label_shards(f'{root}, {split} shards', [root / name for name in splits[split]])
        for split in ('train', held_out)[lone:]
    ]


def _not_seen(root, part, trained_on):
    """Of a data set without splits what a training on it has held out; all of it for a training on other data."""
    if trained_on and np.bincount(part.labels).min() > 1:
        parts = _hold_out(root, part)
        if fingerprint(*map(with_classes_sorted, parts)) == trained_on:
            _tell_held_out(root, parts)
            return parts[1]
    print_log(f'{root} has no splits: all {len(part)} images are measured', 'current', logging.WARNING)
    return part


def _by_name(source):
    """An archive's images in the order in which folders list the same names: by the parts of the path.

    Archives hold members in whatever order their folder gave them, and that must not decide which images are drawn.
    """
    names = list(source.names)
    return source.only(sorted(range(len(names)), key=lambda index: names[index].replace('/', '\0')))


def _label_shards(place, shards):
    source = _by_name(TarShards(shards, skip_held_out=False))
    return label_members(place, source, without_wrapper(list(source.names)))


def _open_archive(root, source, lone):
    """The parts of archives in which folders tell the splits."""
    source = _by_name(source)
    names = below_splits(list(source.names)) or without_wrapper(list(source.names), keep_splits=True)
    splits = _splits_to_read(root, names, lone)
    if not splits:
        return [label_members(str(root), source, names)]
    parts = []
    for split in splits:
        kept = [index for index, name in enumerate(names) if name.startswith(f'{split}/')]
        inside = [names[index].partition('/')[2] for index in kept]
        parts.append(label_members(f'{root}:{split}', source.only(kept), inside))
    return parts


def _splits_to_read(root, names, lone):
    """The folders of the splits, none where there are no splits.

    ``train`` without ``val`` is refused, and so are the reverse, unless that alone is to be read, and splits of other
    names; a class may have such a name.
    """
    train, held_out = splits = find_splits({name.partition('/')[0] for name in names if '/' in name})
    if all(splits):
        return splits[lone:]
    single = train or held_out
    if single and all(name.count('/') > 1 for name in names if name.startswith(f'{single}/')):
        if lone and held_out:
            return (held_out,)
        where = f' ({root / single} alone is a data root too)' if root.is_dir() else ''
        raise InputError(f'{root} holds {single} but no {"val" if train else "train"}: add it{where}')
    unread = splits_within_classes(names)
    if unread:
        raise InputError(
            f'{root}: {unread[0]} is held out by its name, and its parent would be read as one set in classes: '
            'call the folders train and val, with one folder a class in each, and give the folder that holds both'
        )
    return ()


def _hold_out(root, part):
    """A data set without splits in two parts."""
    counts = np.bincount(part.labels)
    if counts.min() < 2:
        raise InputError(
            f'{root} has no splits, and class {part.classes[counts.argmin()]} has 1 image: two are '
            'needed, one of them to hold out'
        )
    # Numbered by name: in which order the files lie changes nothing.
    held_out = draw_subset(with_classes_sorted(part).labels, HELD_OUT, _HELD_OUT_SEED)
    kept = np.setdiff1d(np.arange(len(part.labels)), held_out)
    return [
        replace(part, source=part.source.only(indices), labels=part.labels[indices]) for indices in (kept, held_out)
    ]


def _tell_held_out(root, parts):
    counts = [len(part) for part in parts]
    print_log(
        f'{root} has no splits: {counts[1]} of {sum(counts)} images, a fifth of each class, are held out for '
        'evaluation',
        logger='current',
    )
