"""The checkpoints of a run as files that appear whole or not at all."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from spark_bench.errors import RunError
from spark_bench.files import write_atomically


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """Local files that appear whole or not at all: a run killed while it saves leaves the last checkpoint."""

    def put(self, obj: bytes, filepath: Path | str) -> None:
        """Write bytes to a temporary file beside ``filepath`` and rename it."""
        try:
            write_atomically(filepath, obj)
        except OSError as error:
            raise RunError(f'{filepath} cannot be written: {error.strerror}; mend that, and the same command goes '
                           'on from the checkpoint before') from error
