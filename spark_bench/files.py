"""Writing files so that a reader, or a kill, finds the old one or the new one, never a part."""

import os
import secrets
from pathlib import Path


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
