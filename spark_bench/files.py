"""Writing files and folders so that a reader, or a kill, finds the old one or the new one, never a part."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from spark_bench.errors import InputError

# Marks a folder that this project has made for what it writes: nothing in it is ever taken for data.
MARKER = '.spark_bench'
_MARK = b'spark-bench writes here. What lies in this folder is passed over where pictures are looked for.\n'


def make_folder(path):
    """Make a folder for output, with those above it, and mark it; one that others have filled stays as it is.

    Raises OSError.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with os.scandir(path) as listing:
        empty = not any(listing)
    if empty:
        (path / MARKER).write_bytes(_MARK)


def write_atomically(path, contents):
    """Write ``contents`` (bytes) to ``path`` in one step, with the folders above it. Raises OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_beside(path, contents)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_beside(path, contents):
    """Write ``contents`` (bytes) to a new, synced file beside ``path``; return its path, which ends in ``.tmp``."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp')
    try:
        with open(temporary, 'xb') as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


@contextlib.contextmanager
def new_folder(path):
    """A folder to fill, which becomes ``path`` when the block ends and is gone where it raises.

    Raises:
        InputError: where ``path`` is there already, or cannot be written.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise InputError(f'{path} is there already: give another --output, or take it away')
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp')
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, path)
    except OSError as error:
        raise InputError(f'{path} cannot be written: {error.strerror or error}') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
