"""Writing files and folders so that a reader, or a kill, finds the old one or the new one, never a part.

And so that nothing of somebody else's is replaced: see :func:`claim_output`.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from spark_bench.errors import InputError, printable
from spark_bench.locks import hold

# A temporary folder of another machine (on a shared disk) is abandoned after this many seconds: whether its process
# lives cannot be seen from here.
_ABANDONED_AFTER = 24 * 3600
_HEAD = 2**16  # bytes of a file that tell what it is

# Marks a folder that this project has made for what it writes: nothing in it is ever taken for data.
MARKER = '.spark_bench'
_MARK = b'spark-bench writes here. What lies in this folder is passed over where images are looked for.\n'


def make_folder(path: Path | str) -> None:
    """Make a folder for output, with those above it, and mark it; one that others have filled stays as it is.

    Raises OSError.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with os.scandir(path) as listing:
        empty = not any(listing)
    if empty:
        (path / MARKER).write_bytes(_MARK)


def write_atomically(path: Path | str, contents: bytes) -> None:
    """Write ``path`` in one step, with the folders above it, whatever was there. Raises OSError."""
    with _written_beside(Path(path), contents) as temporary:
        os.replace(temporary, path)


def write_output(path: Path | str, content: str | bytes) -> Path:
    """Write what a command was asked for, replacing the file that was there in one step; return the path.

    A link stays one: the file that it leads to is replaced.

    Raises:
        InputError: if the folder cannot be written, or if something other than a file stands there.
    """
    path, target = Path(path), Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(target):
        raise InputError(f'cannot write {path}: what stands there is not a file; choose another name')
    try:
        write_atomically(target, encode(content) if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(
            f'cannot write {path}: {error.strerror}; {remedy_of(error, "make the folder writable")}, or choose another'
        ) from error
    return path


def remedy_of(error: OSError, otherwise: str) -> str:
    """What to do where a file could not be written."""
    known = {errno.ENOSPC: 'make room', errno.EDQUOT: 'make room', errno.ENOENT: 'make its folder'}
    return known.get(error.errno or 0, otherwise)


def encode(text: str) -> bytes:
    """``text`` as UTF-8, also that of a file name that is none."""
    # The escape of a file name's undecodable byte is also its escape in JSON, so it reads back the same.
    return text.encode('utf-8', errors='backslashreplace')


def create_file(path: Path, contents: bytes) -> None:
    """Write ``path`` in one step, with the folders above it, where nothing is yet.

    Raises:
        FileExistsError: where something is.
        OSError: where it cannot be written.
    """
    with _written_beside(path, contents) as temporary:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            _rename_where_nothing_is(temporary, path)
    with contextlib.suppress(OSError):  # some disks cannot do that for a folder, and the file is there
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _rename_where_nothing_is(temporary, path):
    # Some network and FAT file systems know no hard links: there, look and rename under a lock.
    lock = path.with_name(f'.{path.name}.lock')
    with hold(lock) as held:
        held.callback(lock.unlink)
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.replace(temporary, path)


@contextlib.contextmanager
def _written_beside(path, contents):
    """A synced file beside ``path``, which is gone when the block ends, unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    try:
        with open(temporary, 'xb') as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """An unused hidden sibling of ``path`` for what becomes that file; it ends in ``.tmp``."""
    return path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp')


def claim_output(path: Path | str, own: bytes, option: str = '--output') -> Path:
    """See, before the work, that a file can be written and that nothing but an earlier one of the same kind goes.

    Args:
        path: of the file, which may be there. One that is empty holds nothing to lose.
        own: regular expression for bytes that matches the beginning of what the command itself writes.
        option: that names the file, for the message.

    Raises:
        InputError: where another file stands there, or none can be written.
    """
    if str(path).endswith(('/', os.sep)):
        raise InputError(f'{option} {printable(path)} ends in a slash, as folders do: give the name of a file')
    path, told = Path(path), f'{option} {printable(path)}'
    folder = next(parent for parent in Path(os.path.abspath(path)).parents if parent.exists())
    try:
        _refuse_foreign(path, own, told)
        try_writing(folder)
    except OSError as error:
        raise InputError(
            f'{told} cannot be written ({printable(error.filename or folder)}: {error.strerror}): give '
            'another place, or mend that'
        ) from error
    return path


def try_writing(folder: Path) -> None:
    """Write to a folder, and leave nothing. Raises OSError.

    What the permissions say is not the whole truth: the system may be mounted read-only, or full.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b'x')


def _refuse_foreign(path, own, told):
    try:
        # Without waiting: a pipe may never have a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f'{told}: what stands there is not a file; give another name')
        head = os.read(descriptor, _HEAD)
    finally:
        os.close(descriptor)
    if head and not re.match(own, head):
        raise InputError(
            f'{told}: the file that is there is no earlier output of this command, and is kept: give '
            'another name, or move it away'
        )


@contextlib.contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """A file to fill by its name, which becomes ``path`` when the block ends and is gone where it raises.

    A link stays one: the file that it leads to is replaced. It is as readable as any other new file. A library that
    fails to write it may say so in its own way.

    Raises:
        InputError: where ``path`` cannot be written.
    """
    target = Path(os.path.realpath(path))
    partial = beside(target)
    try:
        open(partial, 'xb').close()
        yield partial
        os.replace(partial, target)
    except InputError:
        raise
    except Exception as error:
        reason = error if isinstance(error, OSError) else _reason_of_failure(error, partial)
        if reason is None:
            raise
        remedy = remedy_of(reason, 'change its permissions')
        raise InputError(
            f'{path} cannot be written: {reason.strerror or reason}; {remedy}, or choose another place'
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
def new_folder(path: Path | str) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` when the block ends and is gone where it raises.

    What killed processes left of the same folder is removed.

    Raises:
        InputError: where ``path`` is there already, or cannot be written.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise InputError(f'{path} is there already: give another --output, or take it away')
    temporary = aside(path, 'tmp')
    try:
        remove_abandoned(path)
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, path)
    except OSError as error:
        raise InputError(f'{path} cannot be written: {error.strerror or error}') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def aside(path: Path, purpose: str) -> Path:
    """An unused hidden sibling of ``path`` whose name tells whose it is."""
    return path.with_name(f'.{path.name}.{purpose}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}')


def remove_abandoned(path: Path) -> None:
    """Remove what :func:`aside` named for processes that are no more."""
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    for sibling in list(siblings):
        owner = re.fullmatch(r'[a-z]+-(.+)-(.+)-[0-9a-f]{8}', sibling.name.removeprefix(f'.{path.name}.'))
        if sibling.name.startswith(f'.{path.name}.') and owner and _is_abandoned(sibling, *owner.groups()):
            shutil.rmtree(sibling, ignore_errors=True)


def _is_abandoned(path, host, pid):
    if host != socket.gethostname() or not pid.isdigit():
        try:
            return time.time() - path.stat().st_mtime > _ABANDONED_AFTER
        except FileNotFoundError:  # its owner has finished meanwhile
            return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # alive, of another user
        pass
    return False
