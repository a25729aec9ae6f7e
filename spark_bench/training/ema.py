"""The exponential moving average (EMA) of the weights, beside the weights that are trained."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from timm.utils import ModelEmaV3, unwrap_model
from torch import nn

from spark_bench.errors import InputError

_MUCH = 0.01  # of the start in the end, above which an average is none of trained weights


@HOOKS.register_module()
class WeightEmaHook(Hook):
    """After each update, ``ema = decay * ema + (1 - decay) * weights``; statistics of batch norm likewise.

    It starts as the weights that training starts from, and is part of each checkpoint. (SparK's released code starts
    it from random weights, before the pretrained ones are loaded. Of those, 0.9999 ** 62,400 =
    0.2 % are left at the end of ConvNeXt-L's 62,400 updates, and less than 10^-5 after every other recipe's.)

    Args:
        decay: in [0, 1).

    Attributes:
        model: the EMA, a copy of the model in evaluation mode; None before training.
    """

    priority = 'NORMAL'  # before evaluation and checkpoint

    def __init__(self, decay: float) -> None:
        if not isinstance(decay, (int, float)) or not 0 <= decay < 1:
            raise InputError(f'the decay of the EMA is {decay!r}: give a number from 0 up, below 1')
        self.decay = decay
        self._ema: ModelEmaV3 | None = None
        self._stored: dict[str, torch.Tensor] | None = None

    @property
    def model(self) -> nn.Module | None:
        return None if self._ema is None else self._ema.module

    def before_train(self, runner: Runner) -> None:
        """Copy the model, or take up the EMA of the checkpoint that the run resumed from."""
        self._ema = ModelEmaV3(unwrap_model(runner.model), decay=self.decay)
        if self._stored is not None:
            self._ema.module.load_state_dict(self._stored, strict=True)
            self._stored = None
        left = self.decay**runner.max_iters
        if left > _MUCH:
            runner.logger.warning(
                f'after {runner.max_iters} updates the EMA of decay {self.decay} still is to {left:.0%} what training '
                'starts from, and so are its figures, top1 among them: lower the decay of WeightEmaHook in '
                f'custom_hooks, such as to {max(0.0, 1 - 7 / runner.max_iters):.4g}, or leave it out'
            )

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Take the new weights in."""
        self._ema.update(unwrap_model(runner.model))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the EMA."""
        checkpoint['ema_state_dict'] = {name: value.cpu() for name, value in self.model.state_dict().items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the EMA until training starts."""
        self._stored = checkpoint.get('ema_state_dict')


def ema_of(runner: Runner) -> WeightEmaHook | None:
    """The run's :class:`WeightEmaHook`, or None."""
    return next((hook for hook in runner.hooks if isinstance(hook, WeightEmaHook)), None)
