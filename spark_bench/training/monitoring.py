"""What is watched while a run trains: how far it is, the time left, curves, reconstructions."""

import contextlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image
from timm.utils import unwrap_model

from spark_bench.errors import InputError
from spark_bench.files import write_atomically
from spark_bench.training.reconstruction import load_images, reconstruct
from spark_bench.training.resume import RECONSTRUCTIONS

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Of evaluations whose names are those of the weights: what was measured of them.
_TAGS = {'raw': 'top1_raw', 'ema': 'top1_ema', 'knn': 'top1_knn'}


@HOOKS.register_module()
class ProgressHook(Hook):
    """Tells a watching process how far training is, in ``<work_dir>/progress.json``; at most once a second."""

    priority = 'VERY_LOW'

    def __init__(self):
        self._started = self._written = time.monotonic()
        self._earlier_s = 0.0

    def before_train(self, runner: Runner) -> None:
        """Take up the clock of a broken-off attempt."""
        self._earlier_s = earlier_seconds(runner.work_dir)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Sequence[dict] | None = None,
        outputs: Mapping[str, float] | None = None,
    ) -> None:
        """Write iteration, total and loss."""
        if not is_main_process() or time.monotonic() - self._written < 1.0:
            return
        self._written = time.monotonic()
        progress = {
            'done': runner.iter + 1,
            'total': runner.max_iters,
            'loss': outputs['loss'],
            'seconds': round(self._written - self._started + self._earlier_s, 1),
        }
        with contextlib.suppress(OSError):  # it only tells how far a run is
            write_atomically(Path(runner.work_dir) / 'progress.json', json.dumps(progress).encode())


def earlier_seconds(work_dir: Path | str) -> float:
    """Seconds that broken-off attempts at a run took, as far as they told; 0 for a first attempt."""
    try:
        return float(json.loads((Path(work_dir) / 'progress.json').read_text())['seconds'])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


@HOOKS.register_module()
class EstimateHook(Hook):
    """Says early on how long the whole training will take: after ``steps`` updates or ``seconds``, what comes first."""

    def __init__(self, steps: int = 10, seconds: float = 30.0) -> None:
        self.steps, self.seconds = steps, seconds
        self._ends: list[float] = []
        self._told = False

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self._ends = [time.monotonic()]

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Log the estimate once."""
        if self._told:
            return
        self._ends.append(time.monotonic())
        done = len(self._ends) - 1
        if done >= self.steps or self._ends[-1] - self._ends[0] >= self.seconds or runner.iter + 1 == runner.max_iters:
            self._told = True
            # The first step also starts workers and warms caches; the median passes over it.
            step_s = float(np.median(np.diff(self._ends)))
            left = timedelta(seconds=round(step_s * (runner.max_iters - runner.iter - 1)))
            runner.logger.info(
                f'about {left} left: {runner.max_iters - runner.iter - 1} of {runner.max_iters} updates '
                f'at {step_s:.3g} s'
            )


def demand_interval(interval: int, hook: str) -> int:
    """The interval of a hook. Raises InputError where it is no whole number from 1 up."""
    if not isinstance(interval, int) or interval < 1:
        raise InputError(f'the interval of {hook} is {interval!r}: give a whole number from 1 up')
    return interval


@HOOKS.register_module()
class TensorBoardHook(Hook):
    """Curves and reconstructions for TensorBoard, in ``<work_dir>/tensorboard``: one run, however often resumed.

    mmengine's backend begins a folder of its own with each attempt.

    Args:
        interval: updates between points.
        image_interval: epochs between reconstructions, which also go to
            ``<work_dir>/reconstructions/epoch_<n>.png``; 0 for none.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 10, image_interval: int = 20) -> None:
        self.interval, self.image_interval = demand_interval(interval, 'TensorBoardHook'), image_interval
        self._writer: SummaryWriter | None = None
        self._images: np.ndarray | None = None

    def before_train(self, runner: Runner) -> None:
        """Open the log behind what was written before, and read the images to show."""
        if not is_main_process():
            return
        from torch.utils.tensorboard import SummaryWriter

        # What a killed attempt logged behind its last checkpoint is computed, and logged, again.
        self._writer = SummaryWriter(str(Path(runner.work_dir) / 'tensorboard'), purge_step=runner.iter + 1)
        if self.image_interval and unwrap_model(runner.model).shown_side is not None:
            self._images = load_images(runner.model, runner.train_dataloader.dataset)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Sequence[dict] | None = None,
        outputs: Mapping[str, float] | None = None,
    ) -> None:
        """Write a point, or the images, where it is time."""
        if self._writer is None:
            return
        step, length = runner.iter + 1, len(runner.train_dataloader)
        if step % self.interval == 0 or step == runner.max_iters:
            self._write_point(runner, step, outputs)
        for entry in runner.message_hub.get_info('evaluations', [])[-1:]:
            if entry['step'] == step:
                for name in sorted(entry.keys() - {'epoch', 'step'}):
                    self._writer.add_scalar(f'val/{_TAGS.get(name, name)}', entry[name], step)
        if self._images is not None and step % (length * self.image_interval) == 0:
            self._write_images(runner, step // length)

    def _write_point(self, runner, step, outputs):
        hub = runner.message_hub
        seconds = hub.get_scalar('train/time').current()
        for name, value in {
            'loss': outputs['loss'],
            'learning_rate': hub.get_scalar('train/lr').current(),
            'weight_decay': hub.get_scalar('train/weight_decay').current(),
            'gradient_norm': hub.get_scalar('train/grad_norm').current(),
            'images_per_second': runner.train_dataloader.sampler.global_batch / max(seconds, 1e-9),
        }.items():
            self._writer.add_scalar(f'train/{name}', value, step)

    def _write_images(self, runner, epoch):
        grid = image_grid(reconstruct(runner.model, self._images))
        self._writer.add_image('reconstructions', grid, epoch * len(runner.train_dataloader), dataformats='HWC')
        png = io.BytesIO()
        Image.fromarray(grid).save(png, 'PNG')
        with contextlib.suppress(OSError):
            write_atomically(Path(runner.work_dir) / RECONSTRUCTIONS / f'epoch_{epoch:04d}.png', png.getvalue())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """A resumed run goes on behind the checkpoint: what is before it must be on disk."""
        if self._writer is not None:
            self._writer.flush()

    def after_run(self, runner: Runner) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()


def image_grid(reconstructions: Mapping[str, np.ndarray], gap: int = 4) -> np.ndarray:
    """One image a row: input, masked, reconstruction, and that with the visible patches pasted back.

    Args:
        reconstructions: what :func:`~spark_bench.training.reconstruction.reconstruct` returns.
        gap: white pixels between.

    Returns:
        uint8 array (H, W, 3).
    """
    columns = [
        np.pad(reconstructions[name], ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
        for name in ('original', 'masked', 'reconstruction', 'pasted')
    ]
    rows = np.concatenate(columns, axis=2)
    return rows.reshape(-1, *rows.shape[2:])[:-gap, :-gap]
