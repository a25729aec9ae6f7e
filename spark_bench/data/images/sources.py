"""Where images come from: folders, list files, COCO, tar shards and zip archives.

Every source is a numbered set of images with random access, so that one shuffle serves them all and a resumed run
finds its place at once.
"""

import codecs
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spark_bench.data.coco.annotations import read_annotations
from spark_bench.data.coco.cleaning import entries_of
from spark_bench.data.images.archives import TarShards, ZipArchive
from spark_bench.data.images.identity import contents_digest
from spark_bench.data.images.ignored import ignored_in, say_beside, say_held_out, say_passed_over, shorten
from spark_bench.data.images.listing import is_image, list_files, no_images
from spark_bench.data.images.numbered import Source
from spark_bench.data.images.splits import leave_held_out_shards
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
            * a folder in COCO layout: the images of the folder that ``annotations/instances_train*.json`` names,
              without those that other annotation files list, where their folder is the same one by a link;
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
    annotations = root / 'annotations'
    truths = sorted(path.stem.removeprefix('instances_') for path in annotations.glob('instances_train*.json'))
    splits = [split for split in truths if (root / split).is_dir()]
    if len(splits) == 1:
        return _open_coco_images(root, splits[0])
    if truths:
        raise InputError(
            f'{annotations} names the images to train on ({", ".join(truths)}), and '
            f'{"several folders have" if splits else "no folder has"} such a name: give the folder of images to train '
            'on with --data-root, or a list file of them'
        )
    images, shards, _ = list_data(root, skip_held_out=True)
    return TarShards([root / name for name in shards]) if shards else ImageFiles(root, images)


def _open_coco_images(root, split):
    """The images of a folder, but for those of other splits where these lie in the same folder, under another name."""
    source = _open_folder(root / split)
    others = [
        path
        for path in sorted((root / 'annotations').glob('instances_*.json'))
        if (folder := path.stem.removeprefix('instances_')) != split
        and (root / folder).is_dir()
        and (root / folder).samefile(root / split)
    ]
    if not others:
        return source
    entries = (entry for path in others for _, entry in entries_of(read_annotations(path).contents, 'images'))
    held_out = {os.path.normpath(str(entry.get('file_name'))) for entry in entries}
    kept = [index for index, name in enumerate(source.names) if name not in held_out]
    if not kept:
        raise InputError(
            f'{root / split} holds no image that {others[0]} does not list: give a list file of those to train on'
        )
    return source.only(kept)


def list_data(root: Path, skip_held_out: bool = False) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """The images below a folder, or else the tar shards.

    Args:
        skip_held_out: leave out folders and shards that are held out for evaluation beside some to train on.

    Returns:
        ``(images, shards, again)``, names relative to it; one of the first two is empty, and shards beside images are
        not read, which is told. The last are folders that links lead to again, see :class:`Listing`.

    Raises:
        InputError: where there is neither, where a link leads nowhere, or where a shard is compressed.
    """
    found = list_files(root, lambda name: is_image(name) or name.lower().endswith(('.tar', *COMPRESSED)), skip_held_out)
    if found.dangling:
        raise InputError(
            f'{root / found.dangling[0]} is a link that leads nowhere: restore what it leads to, or remove it'
        )
    if not found.names:
        raise no_images(root, found.passed)
    say_passed_over(root, found.passed)
    images = [name for name in found.names if is_image(name)]
    packed = [name for name in found.names if not is_image(name)]
    if images:
        say_beside(root, packed)
        say_held_out(root, found.held_out)
        return images, [], found.again
    odd = next((name for name in packed if not name.lower().endswith('.tar')), None)
    if odd is not None:
        raise compressed(root / odd)
    shards = leave_held_out_shards(packed) if skip_held_out else packed
    say_held_out(root, [*found.held_out, *sorted(set(packed).difference(shards))])
    return [], shards, found.again


def compressed(path: Path) -> InputError:
    """The error that an archive is compressed."""
    return InputError(f'{path} is compressed, so no image can be read from its middle: unpack it to a plain .tar')


def _open_list(path):
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode('utf-16', 'replace').encode()
    names, passed = [], []
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
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
    bare, *label = line.rsplit(None, 1)
    for name in (line, bare if label and label[0].isdecimal() else ''):
        try:
            if name and (path.parent / name).is_file():
                return name
        except (OSError, ValueError):  # a name too long, or with a zero byte
            break
    raise InputError(f'{path}, line {number}: {line[:200]!r} is not a file: paths are absolute or relative to the list')


def spread(source: Source, count: int) -> list[int]:
    """``count`` evenly spaced numbers of images (fewer where there are fewer)."""
    return np.linspace(0, len(source) - 1, min(count, len(source))).astype(int).tolist()
