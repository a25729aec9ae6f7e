"""The training loops of pretraining and detection: one iteration is one update of the weights."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, get_world_size
from mmengine.optim import OptimWrapper
from mmengine.registry import LOOPS, OPTIM_WRAPPERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from spark_bench.errors import InputError, RunError
from spark_bench.training.batches import UpdateBatches
from spark_bench.training.guard import NotFinite, explain
from spark_bench.training.optimizers import skips_where_told, use_fused_kernel
from spark_bench.training.processes import once
from spark_bench.training.resume import random_states

# Data sets with a larger share of images that cannot be read are broken.
MAX_BAD_SHARE = 0.03


@LOOPS.register_module()
class UpdateLoop(EpochBasedTrainLoop):
    """mmengine's loop by epochs, with updates as iterations, and able to start in mid-epoch.

    Args:
        max_epochs: how long to train; or
        max_updates: the same in updates, when the last epoch may be broken off.
        accumulate: batches whose gradients are summed for an update.
    """

    _max_iters: int

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_epochs: int | None = None,
        max_updates: int | None = None,
        accumulate: int = 1,
        **kwargs: Any,
    ) -> None:
        loader = UpdateBatches(runner.build_dataloader(dataloader, seed=runner.seed), accumulate)
        if not len(loader):
            raise InputError(
                f'the training set has {len(loader.dataset)} images to learn from, fewer than one '
                'update takes: lower global_batch with --cfg-options'
            )
        if max_epochs is None:
            max_epochs = math.ceil(max_updates / len(loader))
        super().__init__(runner, loader, max_epochs, **kwargs)
        self._max_iters = self._max_iters if max_updates is None else max_updates

    def run(self) -> nn.Module:
        """Train; see :class:`mmengine.runner.EpochBasedTrainLoop`."""
        # A checkpoint of the last update of an epoch counts that epoch as not yet done, and was written before the
        # schedules by epochs took their step behind it.
        self._epoch = self._iter // len(self.dataloader)
        for scheduler in self.runner.param_schedulers:
            while scheduler.by_epoch and scheduler._global_step < self._epoch:
                scheduler.step()
        return super().run()

    def run_epoch(self) -> None:
        """One epoch, or the rest of one."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.start_at(done)
        for index, batches in enumerate(self.dataloader, start=done):
            if self._iter >= self._max_iters:
                break
            self.run_iter(index, batches)
        self.dataloader.start_at(0)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """One update; ``data_batch`` is a list of batches."""
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        outputs = self._train_on(data_batch)
        self.runner.call_hook(
            'after_train_iter',
            batch_idx=idx,
            data_batch=data_batch,
            outputs={**outputs, 'loss': self.runner.optim_wrapper.last_loss},
        )
        self._iter += 1

    def _train_on(self, batches):
        """Take the step; the parts of the loss, averaged over the batches of this process."""
        try:
            parts = [self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper) for batch in batches]
        except NotFinite as error:
            raise once(
                RunError(
                    f'step {self._iter + 1} of {self._max_iters}: {error}. The weights saved before are '
                    'sound: lower the learning rate, or look at the images of that step'
                )
            ) from error
        return {name: sum(float(part[name].detach()) for part in parts) / len(parts) for name in parts[0]}


@LOOPS.register_module()
class PretrainLoop(UpdateLoop):
    """The loop of pretraining: knows images that cannot be read, and finds out where a loss broke."""

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """One update; ``data_batch`` is a list of batches."""
        bad = [name for batch in data_batch for names in batch.pop('bad', ()) for name in names.split('\0') if name]
        if bad:
            self._note_bad(bad)
        super().run_iter(idx, data_batch)

    def _train_on(self, batches):
        states = random_states()
        try:
            for batch in batches:
                self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
        except NotFinite as error:
            self._stop(error, batches, states)
        return {}

    def _stop(self, error, batches, states):
        cause = explain(self.runner.model, batches, states, self.runner.optim_wrapper.computing)
        # The loss and the gradients are sums over all processes, so all of them are here.
        causes = enumerate(all_gather_object(cause))
        rank, cause = next(
            (found for found in causes if found[1]), (0, 'no module gives such a value when the step is repeated')
        )
        where = f', process {rank}' if get_world_size() > 1 else ''
        raise once(
            RunError(
                f'step {self._iter + 1} of {self._max_iters}{where}: {error}; {cause}. The weights saved '
                'before are sound: lower the learning rate, or look at the images of that step'
            )
        )

    def _note_bad(self, names):
        hub = self.runner.message_hub
        known = hub.get_info('bad_images', [])
        fresh = sorted(set(names).difference(known))
        for name in fresh:
            self.runner.logger.warning(f'image {name} cannot be read and is passed over')
        hub.update_info('bad_images', known + fresh)
        images = len(self.dataloader.dataset) // get_world_size()  # each process meets its own
        if len(known) + len(fresh) > max(1, MAX_BAD_SHARE * images):
            raise RunError(
                f'{len(known) + len(fresh)} of {images} images cannot be read, more than '
                f'{MAX_BAD_SHARE:.0%}; the last was {names[-1]}: copy the data set again'
            )


@OPTIM_WRAPPERS.register_module()
class UpdateOptimWrapper(OptimWrapper):
    """Counts batches within an update, computes in bfloat16 where asked, and never takes a step that is not finite.

    Args:
        autocast: bfloat16 autocast. There is no gradient scaler: bfloat16 has float32's range.

    Attributes:
        last_loss: mean loss of the last update over its batches and over all processes.

    Raises:
        InputError: for gradients clipped to nothing, or to less.
    """

    def __init__(self, optimizer: Optimizer, autocast: bool = False, **kwargs: Any) -> None:
        super().__init__(optimizer, **kwargs)
        _demand_bounds(self.clip_grad_kwargs or {})
        use_fused_kernel(optimizer)
        self.autocast = autocast
        self.last_loss: float | None = None
        self._losses: list[torch.Tensor] = []

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Start counting: the loop begins at a whole update, also when resumed, and ends with one."""
        self._inner_count, self._max_counts = 0, -1

    def computing(self, device: torch.device) -> contextlib.AbstractContextManager:
        """The context that a forward pass on ``device`` runs in."""
        return torch.autocast(device.type, torch.bfloat16) if self.autocast else contextlib.nullcontext()

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and no gradient exchange before the last batch of an update."""
        with super().optim_context(model), self.computing(next(model.parameters()).device):
            yield

    def update_params(
        self, loss: torch.Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None
    ) -> None:
        """Add a batch's gradients; at the last batch of an update, take the step."""
        self._losses.append(loss.detach())
        super().update_params(loss, step_kwargs, zero_kwargs)

    def step(self, **kwargs: Any) -> None:
        """Take the step.

        Raises:
            NotFinite: where the loss or the gradients are not finite; the weights stay as they are.
        """
        losses, self._losses = self._losses, []
        loss = torch.stack(losses).mean()
        if get_world_size() > 1:
            dist.all_reduce(loss)
            loss = loss / get_world_size()
        groups = self.optimizer.param_groups
        norms = torch._foreach_norm(
            [parameter.grad for group in groups for parameter in group['params'] if parameter.grad is not None]
        )
        figures = torch.stack([loss, torch.stack(norms).norm()])
        # Where the device itself sees to it that no broken step is taken, it has one to take while the host waits.
        if self.clip_grad_kwargs is None and skips_where_told(self.optimizer):
            self.optimizer.found_inf = (~figures.isfinite().all()).float()
            super().step(**kwargs)
            self._demand_finite(figures)
        else:
            self._demand_finite(figures)
            super().step(**kwargs)

    def _demand_finite(self, figures):
        # One transfer for both: the only time a step waits for the device.
        self.last_loss, norm = figures.tolist()
        if not (math.isfinite(self.last_loss) and math.isfinite(norm)):
            raise NotFinite(self.last_loss, norm)
        self.message_hub.update_scalar('train/grad_norm', norm)
        decay = max(group['weight_decay'] for group in self.optimizer.param_groups)
        self.message_hub.update_scalar('train/weight_decay', decay)


def _demand_bounds(clip_grad):
    for key in ('max_norm', 'clip_value'):
        bound = clip_grad.get(key, 1.0)
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not bound > 0:
            raise InputError(
                f'optim_wrapper.clip_grad.{key} is {bound!r}, which leaves nothing to learn from: give a number above '
                '0, or clip_grad=None for gradients as they are'
            )
