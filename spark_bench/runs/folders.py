"""The folder of a run or an evaluation: made, held by one process, and known by what is computed in it."""

import contextlib
import json
from pathlib import Path

from spark_bench.errors import InputError
from spark_bench.files import make_folder, write_atomically
from spark_bench.locks import hold
from spark_bench.places import default_evaluation_dir
from spark_bench.records.differences import keys_that_differ
from spark_bench.runs.options import RunOptions
from spark_bench.runs.recipe import Identity

STAMP = 'recipe.json'
# What runs and evaluations leave, but for logs.
_OUTPUTS = ('metrics.json', 'categories.json', 'predictions.*.json', 'predictions*.npz', 'reconstructions.npz',
            'detector*.safetensors', 'classifier*.safetensors', 'encoder.safetensors', 'spark.safetensors')


class EvaluationFolder:
    """The folder of one evaluation, which neither a training nor another evaluation has."""

    def __init__(self, options: RunOptions) -> None:
        self.path, self._config = Path(options.work_dir), options.config
        self._lock: contextlib.ExitStack | None = None
        # Without --arch it is the weights that say it.
        names = [default_evaluation_dir(options.config, options.weights, options.data_root, arch=arch,
                                        overrides=options.overrides).name for arch in (options.arch, None)]
        self._identity = Identity('evaluation', {}, names[0], None, None)
        self._is_own_name = self.path.name in names  # so they were called before they had a stamp

    def claim(self) -> None:
        """Make the folder and hold it. Raises InputError where it is another's."""
        make_work_dir(self.path)
        check_stamp(self.path, self._identity, self._config, known=self._is_own_name)
        self._lock = lock_folder(self.path)

    def mark(self) -> None:
        """Say whose the folder is, once all that can be refused has been."""
        write_atomically(self.path / STAMP, self._identity.text.encode())

    def release(self) -> None:
        """Let another evaluation of this process have it."""
        if self._lock is not None:
            self._lock.close()


def write_metrics(folder: Path, metrics: dict[str, float | None]) -> None:
    """Write ``metrics.json``."""
    write_atomically(folder / 'metrics.json', (json.dumps(metrics, indent=1) + '\n').encode())


def check_stamp(work_dir: Path, identity: Identity, config: str, known: bool = False) -> None:
    """See that a folder is this run's, or new: what lies in another's is of other weights.

    Args:
        identity: what the stamp has to hold.
        config: path of the config.
        known: the folder is this run's even without a stamp.

    Raises:
        InputError: naming the folder, or the file that would be replaced.
    """
    stamp = work_dir / STAMP
    if stamp.is_file():
        if stamp.read_text() != identity.text:
            other = ', '.join(_what_differs(stamp, identity))
            raise InputError(f'{work_dir} holds a run with another configuration{f" ({other})" if other else ""}: give '
                             'another --work-dir, or remove it')
        return
    if known:
        return
    copy = work_dir / Path(config).name
    taken = next((path for name in _OUTPUTS for path in sorted(work_dir.glob(name)) if path.is_file()), None)
    if config and copy.is_file() and copy.samefile(config):
        taken = copy
    if taken:
        raise InputError(f'{taken} would be replaced, and is of no run that is known there: give another --work-dir')


def _what_differs(stamp: Path, identity: Identity) -> list[str]:
    """In the run that the folder holds, as far as its stamp tells."""
    try:
        before = Identity(**json.loads(stamp.read_text()))
    except (ValueError, TypeError):
        return []
    return keys_that_differ(before.recipe, identity.recipe) if before.task == identity.task else []


def make_work_dir(work_dir: Path) -> None:
    """Make the folder, and see whether files can be written there.

    Raises:
        InputError: naming the folder.
    """
    try:
        make_folder(work_dir)
        (work_dir / '.lock').open('a').close()
    except OSError as error:
        raise InputError(f'--work-dir {work_dir} cannot be written: {error.strerror}; give another, or change its '
                         'permissions') from error


def lock_folder(work_dir: Path | str, patience_s: float = 10.0) -> contextlib.ExitStack:
    """Hold ``work_dir`` for this process until it ends, or until what is returned is closed.

    Raises:
        InputError: where another process still holds it after ``patience_s`` seconds. (A killed suite's runs end
            within moments, so a little patience is enough to start it again at once.)
    """
    try:
        return hold(Path(work_dir) / '.lock', patience_s)
    except TimeoutError:
        raise InputError(f'another process is running in {work_dir}: wait for it, or give another --work-dir') from None
