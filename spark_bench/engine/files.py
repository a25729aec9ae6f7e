"""Writing files so that a kill leaves the old one or the new one, never a part."""

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from spark_bench.errors import RunError


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """Local files that appear whole or not at all: a run killed while it saves leaves the last checkpoint."""

    def put(self, obj, filepath):
        """Write bytes to a temporary file beside ``filepath`` and rename it."""
        try:
            write_atomically(filepath, obj)
        except OSError as error:
            raise RunError(f'{filepath} cannot be written: {error.strerror}; mend that, and the same command goes '
                           'on from the checkpoint before') from error


def write_atomically(path, contents):
    """Write ``contents`` (bytes) to ``path`` so that a reader, or a kill, never sees a part of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with partial.open('wb') as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
