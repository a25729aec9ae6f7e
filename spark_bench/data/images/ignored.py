"""What lies among images and is none: what systems and tools leave behind, and what this project writes itself."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from spark_bench.errors import InputError, printable
from spark_bench.files import MARKER

# In lower case. Whatever begins with a dot is hidden, and passed over likewise.
_NAMES = {
    '__macosx',
    '@eadir',
    '@tmp',
    '@recycle',
    '@recently-snapshot',
    '#recycle',
    '#snapshot',
    'lost+found',
    '$recycle.bin',
    'recycler',
    'system volume information',
    '__pycache__',
    'thumbs.db',
    'ehthumbs.db',
    'desktop.ini',
    'icon\r',
}
_SHOWN = 3
_told: set[tuple[str, str]] = set()  # roots and what was said of them, by this process


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this bare name is hidden, or one that a system or a tool leaves behind."""
    return name.lower() in _NAMES or name[:1] == '.' and name not in ('.', '..')


def ignored_in(path: str) -> str | None:
    """The part of a path, from its start, that ends in a leftover; None where nothing in it is one.

    Args:
        path: parts parted by ``/``, relative to the data root or inside an archive.
    """
    parts = path.split('/')
    for count, part in enumerate(parts, start=1):
        if is_ignored(part):
            return '/'.join(parts[:count])
    return None


def is_own(folder: Path | str) -> bool:
    """Whether this project wrote a folder: its marker lies there, or nothing does but folders of which that is true."""
    if os.path.exists(os.path.join(folder, MARKER)):
        return True
    try:
        with os.scandir(folder) as listing:
            empty = True
            for entry in listing:
                empty = False
                if not entry.is_dir(follow_symlinks=False) or not is_own(entry.path):
                    return False
            return not empty
    except OSError:
        return False


def say_passed_over(root: Path | str, passed: Iterable[str], tell: Callable[[str], None] | None = None) -> None:
    """Tell what of a data root is passed over.

    Args:
        passed: names relative to the root, which may repeat.
        tell: function that takes the line; None for the log.
    """
    _say_once(root, 'passed over, as hidden, of the system or written by a run', passed, tell or _log)


def say_held_out(root: Path | str, names: Iterable[str]) -> None:
    """Tell which folders or shards of a data root, by their names, are not trained on."""
    _say_once(root, 'not trained on, as held out for evaluation by their names', names, _log)


def say_beside(root: Path | str, names: Iterable[str]) -> None:
    """Tell which archives of a data root are not read, as images lie beside them."""
    _say_once(root, 'not read, as archives beside images', names, _log)


def _say_once(root, what, names, tell):
    """Once a process: a run opens its data several times."""
    names = list(dict.fromkeys(names))
    if names and (str(root), what) not in _told:
        _told.add((str(root), what))
        tell(f'{printable(root)}: {what}: {shorten(names)}')


def _log(line):
    # Imported here: `data check` has no use for it, and starts quickly.
    from mmengine.logging import print_log

    print_log(line, logger='current')


def shorten(names: list[str]) -> str:
    """The first few of many names, and their number."""
    return f'{", ".join(map(printable, names[:_SHOWN]))}{", …" if len(names) > _SHOWN else ""} ({len(names)})'


def demand_apart(folder: Path | str, root: Path | str, option: str) -> None:
    """Refuse a folder for output among the images of a data root, where the next command would take it for data.

    Args:
        folder: there or not. One that :func:`spark_bench.files.make_folder` has marked, or makes, is fine.
        option: that names the folder, for the message.

    Raises:
        InputError: naming the option.
    """
    place, top = Path(os.path.realpath(folder)), Path(os.path.realpath(root))
    if not top.is_dir() or not place.is_relative_to(top):
        return
    between = [place, *place.parents][: len(place.parts) - len(top.parts)]
    if place == top or _is_filled(place) and not any((part / MARKER).exists() for part in between):
        raise InputError(
            f'{option} {folder} lies among the images of --data-root {root}, where what is written '
            'would be taken for data: give a new folder, there or elsewhere'
        )


def _is_filled(folder):
    try:
        with os.scandir(folder) as listing:
            return any(listing)
    except OSError:
        return False
