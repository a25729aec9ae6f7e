"""Writing files and folders so that a reader, or a kill, finds the old one or the new one, never a part."""

import contextlib
import errno
import os
import re
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
def new_file(path):
    """A file to fill by its name, which becomes ``path`` when the block ends and is gone where it raises.

    It is as readable as any other new file. A library that fails to write it may say so in its own way.

    Raises:
        InputError: where ``path`` cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp')
    try:
        open(partial, 'xb').close()
        yield partial
        os.replace(partial, path)
    except InputError:
        raise
    except Exception as error:
        reason = error if isinstance(error, OSError) else _reason_of_failure(error, partial)
        if reason is None:
            raise
        remedy = {errno.ENOSPC: 'make room', errno.EDQUOT: 'make room', errno.ENOENT: 'make its folder'}.get(
            reason.errno, 'change its permissions')
        raise InputError(f'{path} cannot be written: {reason.strerror or reason}; {remedy}, or choose another place'
                         ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _reason_of_failure(error, path):
    """The system's error behind that of a library which was to write ``path``; None where there is none."""
    # Rust's libraries take their file away before they say why.
    number = re.search(r'os error (\d+)|code: (\d+)', str(error))
    if number:
        return OSError(int(number[1] or number[2]), os.strerror(int(number[1] or number[2])))
    try:
        with open(path, 'ab') as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as reason:
        return reason
    return None


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
