"""Where images come from: folders, list files, COCO, tar shards and zip archives.

Every source is a numbered set of images with random access, so that one shuffle serves them all and a resumed run
finds its place at once.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spark_bench.data.images.archives import TarShards, ZipArchive
from spark_bench.data.images.identity import contents_digest
from spark_bench.data.images.ignored import ignored_in, say_held_out, say_passed_over, shorten
from spark_bench.data.images.listing import is_image, list_files, no_images
from spark_bench.data.images.numbered import Source
from spark_bench.data.images.splits import leave_held_out
from spark_bench.errors import InputError

COMPRESSED = ('.tar.gz', '.tgz', '.tar.bz2', '.tar.xz', '.tar.zst')
_LISTS = ('.txt', '.lst')


class ImageFiles(Source):
    """Images that are files, by names relative to ``root`` or absolute paths."""

    def __init__(self, root: Path | str, names: Iterable[str]):
        super().__init__(names)
        self.root = str(root)

    def name(self, index: int) -> str:
        return os.path.join(self.root, self.names[index])

    def open(self, index: int) -> str:
        return self.name(index)

    def fingerprint(self) -> str:
        return contents_digest(self.root, self.names)


def open_images(root: Path | str) -> Source:
    """Open a set of images.

    Args:
        root: one of

            * a folder of images at any depth; where a folder ``train`` lies beside ``val`` or ``test`` (ImageNet's
              layout), the held-out ones are left out;
            * a folder in COCO layout: the images of the split that ``annotations/instances_train*.json`` names;
            * a folder of uncompressed tar shards as webdataset writes them, or one such file;
            * a list file (``.txt``): one path a line, absolute or relative to the list; a class number behind the
              path, as in ImageNet's lists, is passed over;
            * a ``.zip`` of images. Inside archives, folders are held out as outside.

    Raises:
        InputError: one line naming what is wrong.
    """
    path = Path(root)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise InputError(
            f'data root {path} does not exist: give a folder, a list file or an archive of images with --data-root'
        )
    kind = path.suffix.lower()
    if kind in _LISTS:
        return _open_list(path)
    if kind == '.tar':
        return TarShards([path])
    if kind == '.zip':
        return ZipArchive(path)
    if path.name.lower().endswith(COMPRESSED):
        raise compressed(path)
    raise InputError(
        f'data root {path} is neither a folder nor a list (.txt), .tar or .zip file: give one of these with --data-root'
    )


def _open_folder(root):
    splits = sorted((root / 'annotations').glob('instances_train*.json'))
    if len(splits) == 1 and (root / splits[0].stem.removeprefix('instances_')).is_dir():
        return _open_folder(root / splits[0].stem.removeprefix('instances_'))
    images = list_files(root, is_image, skip_held_out=True)
    if images.names:
        say_passed_over(root, images.passed)
        say_held_out(root, images.held_out)
        return ImageFiles(root, images.names)
    archives = list_files(root, lambda name: name.lower().endswith(('.tar', *COMPRESSED)), skip_held_out=True)
    shards = [name for name in archives.names if name.lower().endswith('.tar')]
    if shards:
        trained = leave_held_out(shards)
        say_passed_over(root, archives.passed)
        say_held_out(root, [*archives.held_out, *(name for name in shards if name not in set(trained))])
        return TarShards([root / name for name in trained])
    raise compressed(root / archives.names[0]) if archives.names else no_images(root, images.passed)


def compressed(path: Path) -> InputError:
    """The error that an archive is compressed."""
    return InputError(f'{path} is compressed, so no image can be read from its middle: unpack it to a plain .tar')


def _open_list(path):
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    names, passed = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            name = _entry(path, number, os.fsdecode(line.strip()))
            (passed if ignored_in(_below(path.parent, name)) else names).append(name)
    if not names:
        beside = f' beside what is hidden or of the system: {shorten(passed)}' if passed else ''
        raise InputError(f'{path} lists no image{beside}: give one path a line')
    say_passed_over(path, passed)
    return ImageFiles(path.parent, names)


def _below(folder, name):
    """A name relative to the folder of its list; of one elsewhere, the file alone, wherever it may lie."""
    inside = os.path.relpath(folder / name, folder)
    return os.path.basename(name) if inside.startswith('..') else inside


def _entry(path, number, line):
    """The path on one line of a list, checked."""
    bare, _, label = line.rpartition(' ')
    for name in (line, bare if label.isdigit() else ''):
        try:
            if name and (path.parent / name).is_file():
                return name
        except (OSError, ValueError):  # a name too long, or with a zero byte
            break
    raise InputError(f'{path}, line {number}: {line[:200]!r} is not a file: paths are absolute or relative to the list')


def spread(source: Source, count: int) -> list[int]:
    """``count`` evenly spaced numbers of images (fewer where there are fewer)."""
    return np.linspace(0, len(source) - 1, min(count, len(source))).astype(int).tolist()
