"""What every run adds to mmengine's Runner."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.hooks import Hook
from mmengine.registry import HOOKS, OPTIMIZERS
from timm.optim import Lamb, Lars

from spark_bench.files import write_atomically
from spark_bench.training.processes import is_main_process

if TYPE_CHECKING:
    from mmengine.runner import Runner

# timm's, as the recipes name them; mmpretrain has others of its own under the plain names.
OPTIMIZERS.register_module(name='TimmLamb', module=Lamb)
OPTIMIZERS.register_module(name='TimmLars', module=Lars)


@HOOKS.register_module()
class ProgressHook(Hook):
    """Tells a watching process how far training is, in ``<work_dir>/progress.json``; at most once a second."""

    priority = 'VERY_LOW'

    def __init__(self):
        self._started = self._written = time.monotonic()
        self._earlier_s = 0.0

    def before_train(self, runner: 'Runner') -> None:
        """Take up the clock of a broken-off attempt."""
        self._earlier_s = earlier_seconds(runner.work_dir)

    def after_train_iter(self, runner: 'Runner', batch_idx: int, data_batch: Sequence[dict] | None = None,
                         outputs: Mapping[str, float] | None = None) -> None:
        """Write iteration, total and loss."""
        if not is_main_process() or time.monotonic() - self._written < 1.0:
            return
        self._written = time.monotonic()
        progress = {'done': runner.iter + 1, 'total': runner.max_iters, 'loss': outputs['loss'],
                    'seconds': round(self._written - self._started + self._earlier_s, 1)}
        write_atomically(Path(runner.work_dir) / 'progress.json', json.dumps(progress).encode())


def earlier_seconds(work_dir: Path | str) -> float:
    """Seconds that broken-off attempts at a run took, as far as they told; 0 for a first attempt."""
    try:
        return float(json.loads((Path(work_dir) / 'progress.json').read_text())['seconds'])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
