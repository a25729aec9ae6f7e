"""What every run adds to mmengine's Runner."""

import json
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, OPTIMIZERS
from timm.optim import Lamb

from spark_bench.errors import RunError

# timm's LAMB, as the recipe names it; mmpretrain has one of its own under the plain name.
OPTIMIZERS.register_module(name='TimmLamb', module=Lamb)


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


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Keeps the state of the random generators in each checkpoint, so that a resumed run draws on as before."""

    def before_save_checkpoint(self, runner, checkpoint):
        """Add the states under ``random_state``."""
        checkpoint['random_state'] = {
            'torch': torch.get_rng_state(), 'numpy': np.random.get_state(), 'python': random.getstate()}

    def after_load_checkpoint(self, runner, checkpoint):
        """Restore the states where the checkpoint has them."""
        state = checkpoint.get('random_state')
        if state is not None:
            torch.set_rng_state(state['torch'].cpu())
            np.random.set_state(state['numpy'])
            random.setstate(state['python'])


@HOOKS.register_module()
class ProgressHook(Hook):
    """Tells a watching process how far training is, in ``<work_dir>/progress.json``; at most once a second."""

    priority = 'VERY_LOW'

    def __init__(self):
        self._started = self._written = time.monotonic()
        self._earlier_s = 0.0

    def before_train(self, runner):
        """Take up the clock of a broken-off attempt."""
        self._earlier_s = earlier_seconds(runner.work_dir)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Write iteration, total and loss."""
        if time.monotonic() - self._written < 1.0:
            return
        self._written = time.monotonic()
        progress = {'done': runner.iter + 1, 'total': runner.max_iters, 'loss': float(outputs['loss']),
                    'seconds': round(self._written - self._started + self._earlier_s, 1)}
        write_atomically(Path(runner.work_dir) / 'progress.json', json.dumps(progress).encode())


def earlier_seconds(work_dir):
    """Seconds that broken-off attempts at a run took, as far as they told; 0 for a first attempt."""
    try:
        return float(json.loads((Path(work_dir) / 'progress.json').read_text())['seconds'])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a run whose loss is no longer a number, naming the step."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Raise :class:`RunError` at a NaN or infinite loss."""
        if not torch.isfinite(outputs['loss']):
            raise RunError(f'the loss is {float(outputs["loss"])} at step {runner.iter + 1} of {runner.max_iters}: '
                           'lower the learning rate, or look at the pictures of that step')
