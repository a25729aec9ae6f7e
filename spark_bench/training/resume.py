"""Checkpoints to resume from: plain data only, whole or not there, with everything that the next step depends on."""

import contextlib
import hashlib
import logging
import pickle
import random
import re
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from spark_bench.errors import InputError, RunError
from spark_bench.files import write_atomically

# Of :func:`spark_bench.files.beside`.
_UNFINISHED = re.compile(r'\..+\.\d+\.[0-9a-f]{8}\.tmp')
RECONSTRUCTIONS = 'reconstructions'  # folder in a run's
_NAME = re.compile(r'epoch_\d+(_iter_\d+)?\.pth')
_PLAIN = (str, int, float, bool, type(None))


def random_states() -> dict[str, Any]:
    """The state of this process's random generators, as plain data and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    states = {
        'torch': torch.get_rng_state(),
        'python': random.getstate(),
        'numpy': (kind, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss),
    }
    if torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Restore what :func:`random_states` gave."""
    torch.set_rng_state(states['torch'].cpu())
    random.setstate(states['python'])
    kind, keys, position, has_gauss, gauss = states['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Within, numbers may be drawn at random; afterwards the generators go on as if none had been."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """Local files that appear whole or not at all: a run killed while it saves leaves the last checkpoint."""

    def put(self, obj: bytes, filepath: Path | str) -> None:
        """Write bytes to a temporary file beside ``filepath`` and rename it."""
        try:
            write_atomically(filepath, obj)
        except OSError as error:
            raise RunError(
                f'{filepath} cannot be written: {error.strerror}; mend that, and the same command goes '
                'on from the checkpoint before'
            ) from error


@HOOKS.register_module()
class ResumePointHook(Hook):
    """Writes a checkpoint after each epoch, at the end, and in mid-epoch where asked, and keeps the newest few.

    It holds the states of the random generators, so that a resumed run draws on as before, and can be read without
    unpickling objects.

    Args:
        interval: updates between checkpoints, counted from the start; None writes none in mid-epoch.
        keep: how many stay.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int | None = None, keep: int = 2) -> None:
        if keep < 1:
            raise InputError(f'default_hooks.checkpoint.keep is {keep}: give the number that stays, 1 or more')
        if interval is not None and (not isinstance(interval, int) or interval < 1):
            raise InputError(
                f'default_hooks.checkpoint.interval is {interval!r}: give a whole number of updates from 1 up, or None '
                'for none in mid-epoch'
            )
        self.interval, self.keep = interval, keep
        self._states: list[dict[str, Any]] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states of all processes under ``random_state``; lay mmengine's histories out as tensors."""
        checkpoint['random_state'] = self._states
        hub = checkpoint['message_hub']
        info = {name: list(value) if isinstance(value, deque) else value for name, value in hub['runtime_info'].items()}
        checkpoint['message_hub'] = {
            'log_scalars': {
                name: [torch.from_numpy(np.asarray(part)) for part in buffer.data]
                for name, buffer in hub['log_scalars'].items()
            },
            'runtime_info': {name: value for name, value in info.items() if _is_plain(value)},
            'resumed_keys': dict(hub['resumed_keys']),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the states, and mmengine's histories."""
        hub = checkpoint['message_hub']
        hub['log_scalars'] = {
            name: HistoryBuffer(*(part.numpy() for part in parts)) for name, parts in hub['log_scalars'].items()
        }
        states = checkpoint['random_state']
        if len(states) == get_world_size():
            set_random_states(states[get_rank()])
        else:
            runner.logger.warning(
                f'the checkpoint was written by {len(states)} processes, this run has {get_world_size()}: masks and '
                'stochastic depth are drawn anew from here on'
            )
            seed = hashlib.sha256(states[0]['torch'].cpu().numpy().tobytes() + str(get_rank()).encode()).digest()
            torch.manual_seed(int.from_bytes(seed[:8], 'little'))
            np.random.seed(int.from_bytes(seed[8:12], 'little'))
            random.seed(seed)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Write where it is time; all processes take part."""
        done = runner.iter + 1
        epochs, rest = divmod(done, len(runner.train_dataloader))
        if rest and done < runner.max_iters and not (self.interval and done % self.interval == 0):
            return
        names = bad_images(runner)
        # Known to the first process alone from here on: only its copy is saved.
        runner.message_hub.update_info('bad_images', names if is_main_process() else [])
        self._states = all_gather_object(random_states())
        name = f'epoch_{epochs}_iter_{rest}.pth' if rest else f'epoch_{epochs}.pth'
        runner.save_checkpoint(runner.work_dir, name, by_epoch=False, backend_args=dict(backend='atomic'))
        if is_main_process():
            found = checkpoints_of(runner.work_dir)
            # Behind this one: what counts as newer is damaged, or it would have been resumed from.
            for path in found[[path.name for path in found].index(name) + self.keep :]:
                path.unlink()


def _is_plain(value):
    if isinstance(value, dict):
        return all(_is_plain(part) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple)):
        return all(_is_plain(part) for part in value)
    return type(value) in _PLAIN


def bad_images(runner: Runner) -> list[str]:
    """Sorted names of the images that were passed over, in all processes."""
    known = all_gather_object(runner.message_hub.get_info('bad_images', []))
    return sorted({name for names in known for name in names})


def checkpoints_of(work_dir: Path | str) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = [path for path in Path(work_dir).glob('epoch_*.pth') if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: [int(number) for number in re.findall(r'\d+', path.name)], reverse=True)


def newest_checkpoint(work_dir: Path | str) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    for path in checkpoints_of(work_dir):
        with contextlib.suppress(zipfile.BadZipFile, OSError, EOFError), zipfile.ZipFile(path) as archive:
            if archive.testzip() is None:
                return path
        logging.getLogger(__name__).warning('%s is damaged and passed over', path)
    return None


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint of a run without unpickling any object.

    Raises:
        InputError: where it holds more than plain data.
    """
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        raise InputError(
            f'{path} is not a checkpoint to resume from: remove it, and the same command goes on from the one before'
        ) from error


def clear_leftovers(work_dir: Path | str) -> None:
    """Remove what killed attempts were writing: for the holder of the folder's lock alone."""
    for folder in (Path(work_dir), Path(work_dir) / RECONSTRUCTIONS):
        for path in folder.glob('.*.tmp'):
            if _UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)
