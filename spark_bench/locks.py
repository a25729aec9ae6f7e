"""Locks between processes: held until freed or until the process that holds one ends, however it ends."""

import contextlib
import fcntl
from pathlib import Path


def hold(path: Path, patience_s: float = -1) -> contextlib.ExitStack:
    """Hold the lock that is the file ``path``, which is made where it is not there.

    Args:
        path: of the lock. Its holder may remove it: whoever waits for it then makes another.
        patience_s: seconds to wait for another holder, of this process or another; below 0 without end.

    Returns:
        what frees the lock: by ``close()``, or as a context manager. A process that this one forks does not hold it.

    Raises:
        TimeoutError: where it is still held by then.
        OSError: where the file cannot be written, or its disk knows no locks.
    """
    # Imported here: it brings asyncio, and most commands hold no lock.
    from filelock import FileLock

    held = contextlib.ExitStack()
    held.enter_context(FileLock(path, timeout=patience_s, thread_local=False, fallback_to_soft=False))
    return held


def is_held(path: Path) -> bool:
    """Whether a process holds the lock ``path``; a file that is not there is none."""
    try:
        # A shared lock, which filelock has none of: two that look at once do not see each other, and reading is enough.
        with open(path, 'rb') as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
