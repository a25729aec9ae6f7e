"""Listing images below a folder, fast enough for ImageNet."""

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from spark_bench.data.images.ignored import is_ignored, say_passed_over, shorten
from spark_bench.data.images.splits import leave_held_out
from spark_bench.errors import InputError
from spark_bench.files import MARKER

# Of ImageNet-1k, and the names of its folders.
IMAGENET_CLASSES, WNID = 1000, re.compile(r'n\d{8}')
# What Pillow reads, and what cameras and websites give that it may not: refused by name, not left out in silence.
EXTENSIONS = {'.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm'}
EXTENSIONS |= {'.gif', '.jp2', '.avif', '.heic', '.heif', '.jxl'}


def is_image(name: str) -> bool:
    """Whether the file name ends as an image's does."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


class Listing(NamedTuple):
    """What was found below a folder; names are relative to it.

    Attributes:
        names: of files, sorted by the parts of their path.
        passed: what is ignored, and what this project has written; a folder ends in ``/``.
        dangling: links that lead nowhere.
        held_out: folders that are left out as they are for evaluation; each ends in ``/``.
        again: folders that are another one by a link, and stand under its name: ``(name, name of the other)``.
    """

    names: list
    passed: list
    dangling: list
    held_out: list
    again: list


def list_files(root: Path | str, wanted: Callable[[str], bool], skip_held_out: bool = False) -> Listing:
    """List files below ``root``, at any depth, but for what is ignored and for folders that this project has written.

    Links to folders are followed, each folder once. No file is looked at beyond its directory entry.

    Args:
        wanted: says of the bare name of a file whether it is listed.
        skip_held_out: leave out ``val`` and ``test`` folders that lie beside a ``train`` folder.

    Raises:
        InputError: for a folder that cannot be read.
    """
    found = Listing([], [], [], [], [])
    seen: dict[tuple[int, int], str] = {}

    def visit(folder, prefix):
        try:
            status = os.stat(folder)
            first = seen.setdefault((status.st_dev, status.st_ino), prefix)
            if first != prefix:
                if not prefix.startswith(first):  # else it leads up, in a circle
                    found.again.append((prefix, first))
                return
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            if prefix and any(entry.name == MARKER for entry in entries):
                found.passed.append(prefix)
                return
            entries = _without_ignored(entries, prefix, wanted, found.passed)
            folders = [entry.name for entry in entries if entry.is_dir()]
        except OSError as error:
            raise InputError(f'folder {folder} cannot be read: {error.strerror}') from error
        trained = set(leave_held_out(folders) if skip_held_out else folders)
        found.held_out.extend(f'{prefix}{name}/' for name in folders if name not in trained)
        for entry in entries:
            if entry.name in trained:
                visit(entry.path, f'{prefix}{entry.name}/')
            elif wanted(entry.name) and entry.is_file():
                found.names.append(prefix + entry.name)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                found.dangling.append(prefix + entry.name)

    visit(str(root), '')
    return found


def _without_ignored(entries, prefix, wanted, passed):
    """The entries of a folder that are not ignored; the others that would be listed are noted in ``passed``."""
    left = [entry for entry in entries if is_ignored(entry.name)]
    passed.extend(
        f'{prefix}{entry.name}{"/" if entry.is_dir() else ""}' for entry in left if entry.is_dir() or wanted(entry.name)
    )
    return [entry for entry in entries if not is_ignored(entry.name)] if left else entries


def find_images(root: Path | str) -> list[Path]:
    """List all images below ``root``, at any depth, sorted by path.

    Raises:
        InputError: where the folder is absent or holds no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f'data root {root} is not a folder: give a folder of images with --data-root')
    found = list_files(root, is_image)
    if not found.names:
        raise no_images(root, found.passed)
    # Standard output is for what a command makes of them.
    say_passed_over(root, found.passed, lambda line: print(line, file=sys.stderr))
    return [root / name for name in found.names]


def no_images(root: Path | str, passed: Iterable[str] = ()) -> InputError:
    """The error that ``root`` holds nothing to train on, beside what was passed over."""
    beside = f' beside what is hidden, of the system or written by a run: {shorten(list(passed))}' if passed else ''
    return InputError(
        f'data root {root} holds no image ({", ".join(sorted(EXTENSIONS))}){beside}: give another '
        'folder with --data-root'
    )
