"""What is to train on and what is held out, by the names of folders and shards."""

import os
import re
from collections.abc import Collection, Iterable

_TRAIN = re.compile(r'(^|[-_.])(train|training)([-_.\d]|$)', re.IGNORECASE)
_HELD_OUT = re.compile(r'(^|[-_.])(val|valid|validation|test|testing)([-_.\d]|$)', re.IGNORECASE)
_TEST = re.compile(r'(^|[-_.])(test|testing)([-_.\d]|$)', re.IGNORECASE)
_TRAIN_FOLDERS, _EVALUATION_FOLDERS = ('train', 'training'), ('val', 'valid', 'validation', 'test', 'testing')


def leave_held_out(names: Collection[str]) -> list[str]:
    """Sibling folders without those held out for evaluation where some are to train on, by their names."""
    beside = any(_TRAIN.search(name) for name in names)
    return [name for name in names if not (beside and _HELD_OUT.search(name))]


def leave_held_out_shards(names: Collection[str]) -> list[str]:
    """Shards, by their paths, without those held out for evaluation where some are to train on."""
    splits = {name: shard_split(name) for name in names}
    beside = 'train' in splits.values()
    return [name for name, split in splits.items() if not (beside and split in ('val', 'test'))]


def find_splits(names: Iterable[str]) -> tuple[str | None, ...]:
    """The folders to train and to evaluate on.

    Args:
        names: names of sibling folders; the first of val, valid, validation, test, testing that is among them counts.

    Returns:
        ``(train, evaluation)``, None for what is not among them.
    """
    names = {name.lower(): name for name in sorted(names, reverse=True)}
    return tuple(
        next((names[name] for name in known if name in names), None) for known in (_TRAIN_FOLDERS, _EVALUATION_FOLDERS)
    )


def shard_split(name: str) -> str | None:
    """``train``, ``val`` or ``test``: what the name of a shard says, or else its folders; None where nothing does."""
    for part in reversed(name.split('/')):
        if _HELD_OUT.search(part):
            return 'test' if _TEST.search(part) else 'val'
        if _TRAIN.search(part):
            return 'train'
    return None


def held_out_folders(names: Iterable[str]) -> set[str]:
    """The folders inside an archive that :func:`leave_held_out` drops.

    Args:
        names: paths of its members, parts parted by ``/``.
    """
    siblings: dict[str, dict[str, str]] = {}  # from a folder to those in it, by their own names
    for folder in {name.rpartition('/')[0] for name in names}:
        while folder:
            parent, _, own = folder.rpartition('/')
            siblings.setdefault(parent, {})[own] = folder
            folder = parent
    return {
        folder
        for children in siblings.values()
        for own, folder in children.items()
        if own not in leave_held_out(children)
    }


def splits_within_classes(names: Iterable[str]) -> list[str]:
    """Folders that by their names are held out from others, in a set whose first folders would be its classes.

    A class may be called ``train``: its images lie in it, where a split has folders of classes.

    Args:
        names: paths of the images, parts parted by ``/``.
    """
    inside = (name for name in names if name.count('/') > 1 or not _TRAIN.search(name.partition('/')[0]))
    return sorted(held_out_folders(inside))


def below_splits(names: list[str]) -> list[str] | None:
    """Names without the folders around both splits, where there are such; images beside the splits are kept as such."""
    while folders := {name.partition('/')[0] for name in names if '/' in name}:
        if all(find_splits(folders)):
            return names
        if len(folders) > 1:
            return None
        [around] = folders
        names = [name.removeprefix(f'{around}/') for name in names]
    return None


def without_wrapper(names: list[str], keep_splits: bool = False) -> list[str]:
    """Names without the folders that all of them lie in, except the last, which is a class, or the name of a split."""
    names = [name.removeprefix('./').lstrip('/') for name in names]
    wrapper = os.path.commonprefix([min(names), max(names)])
    wrapper = wrapper[: wrapper.rfind('/') + 1]
    while wrapper and (
        any('/' not in name[len(wrapper) :] for name in names) or keep_splits and any(find_splits(wrapper.split('/')))
    ):
        wrapper = wrapper[: wrapper.rfind('/', 0, -1) + 1]
    return [name[len(wrapper) :] for name in names]
