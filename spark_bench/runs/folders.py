"""The folder of a run or an evaluation: made, held by one process, and known by what is computed in it."""

import contextlib
import json
import logging
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from spark_bench.errors import InputError
from spark_bench.files import make_folder, write_atomically
from spark_bench.locks import hold
from spark_bench.places import STAMP
from spark_bench.records.differences import keys_that_differ
from spark_bench.runs.recipe import Identity

# What runs and evaluations leave, but for logs.
_OUTPUTS = (
    'config.py',
    'metrics.json',
    'categories.json',
    'predictions.*.json',
    'predictions*.npz',
    'reconstructions.npz',
    'detector*.safetensors',
    'classifier*.safetensors',
    'encoder.safetensors',
    'spark.safetensors',
    'epoch_*.pth',
)


def write_metrics(folder: Path, metrics: dict[str, float | None]) -> None:
    """Write ``metrics.json``."""
    write_atomically(folder / 'metrics.json', (json.dumps(metrics, indent=1) + '\n').encode())


def claim_folder(work_dir: Path, *identities: Identity, known: bool = False) -> contextlib.ExitStack:
    """Make a folder and hold it for what has such an identity; see :func:`check_stamp` and :func:`lock_folder`."""
    make_work_dir(work_dir)
    check_stamp(work_dir, *identities, known=known)
    with lock_folder(work_dir) as held:
        check_stamp(work_dir, *identities, known=known)  # whoever held it may have made it another's
        return held.pop_all()


def mark_folder(work_dir: Path, identity: Identity, cfg: Config) -> None:
    """What lies in the folder from now on is of that identity, and of this config, which is written there."""
    write_atomically(work_dir / STAMP, identity.text.encode())
    cfg.dump(work_dir / 'config.py')


def check_stamp(work_dir: Path, *identities: Identity, known: bool = False) -> None:
    """See that a folder is this run's, or new: what lies in another's is of other weights.

    Args:
        identities: of which the stamp has to hold one.
        known: the folder is this run's even without a stamp.

    Raises:
        InputError: naming the folder, or the file that would be replaced.
    """
    stamp = work_dir / STAMP
    if stamp.is_file():
        if stamp.read_text() not in [identity.text for identity in identities]:
            other = ', '.join(_what_differs(stamp, identities[-1]))
            raise InputError(
                f'{work_dir} holds a run with another configuration{f" ({other})" if other else ""}: give '
                'another --work-dir, or remove it'
            )
        return
    if known:
        return
    taken = next((path for name in _OUTPUTS for path in sorted(work_dir.glob(name)) if path.is_file()), None)
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
        raise InputError(
            f'--work-dir {work_dir} cannot be written: {error.strerror}; give another, or change its permissions'
        ) from error


def lock_folder(work_dir: Path | str, patience_s: float = 10.0) -> contextlib.ExitStack:
    """Hold ``work_dir`` for this process until it ends, or until what is returned is closed.

    A disk that knows no locks is written without, with a warning.

    Raises:
        InputError: where another process still holds it after ``patience_s`` seconds. (A killed suite's runs end
            within moments, so a little patience is enough to start it again at once.)
    """
    try:
        return hold(Path(work_dir) / '.lock', patience_s)
    except TimeoutError:
        raise InputError(f'another process is running in {work_dir}: wait for it, or give another --work-dir') from None
    except (OSError, NotImplementedError) as error:
        print_log(
            f'the disk of {work_dir} knows no locks ({error}): start nothing else there meanwhile',
            'current',
            logging.WARNING,
        )
        return contextlib.ExitStack()
