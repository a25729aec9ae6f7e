"""Learning rate, weight decay and parameter groups of the pretraining recipe."""

import math
from collections.abc import Mapping
from typing import Any

from mmengine.optim import OPTIM_WRAPPER_CONSTRUCTORS, OptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS
from timm.utils import unwrap_model
from torch import nn
from torch.optim import Optimizer


class _ClosedForm(_ParamScheduler):
    """A schedule whose value is a function of the step alone.

    mmengine's own are recursive: their last value is a little off, and depends on rounding along the way. Steps are
    updates of the weights; a config states epochs, with ``convert_to_iter_based``.
    """

    @classmethod
    def build_iter_from_epoch(cls, *args, end, epoch_length, by_epoch=True, **kwargs):
        """The schedule with its lengths, given in epochs, in updates."""
        for name in ('warmup', 'begin'):
            if name in kwargs:
                kwargs[name] *= epoch_length
        return cls(*args, end=end * epoch_length, by_epoch=False, **kwargs)

    def _cosine(self, first, end_factor):
        """1 at step ``first`` behind the begin, ``end_factor`` at the last step, half a cosine between."""
        progress = (self.last_step - first) / max(1, self.end - self.begin - 1 - first)
        return end_factor + (1.0 - end_factor) * (0.5 + 0.5 * math.cos(math.pi * progress))


@PARAM_SCHEDULERS.register_module()
class WarmupCosine(_ClosedForm):
    """Linear from ``start_factor`` of the peak over ``warmup`` steps, then cosine to ``end_factor`` at the last step.

    Source: SparK's released code; the peak is the optimizer's learning rate. With ``from_start`` the cosine begins with
    the warm-up, which hides its first part, as in microsoft/SimMIM: timm's schedule without ``warmup_prefix``.
    """

    def __init__(
        self,
        optimizer: Optimizer | OptimWrapper,
        warmup: float,
        end: int,
        start_factor: float = 0.005,
        end_factor: float = 0.001,
        from_start: bool = False,
        **kwargs: Any,
    ) -> None:
        self.warmup, self.start_factor, self.end_factor = warmup, start_factor, end_factor
        self._first = 0 if from_start else warmup
        super().__init__(optimizer, 'lr', end=end, **kwargs)

    def _get_value(self):
        if self.last_step < self.warmup:
            factor = self.start_factor + (1 - self.start_factor) * self.last_step / self.warmup
        else:
            factor = self._cosine(self._first, self.end_factor)
        return [peak * factor for peak in self.base_values]


@PARAM_SCHEDULERS.register_module()
class CosineWeightDecay(_ClosedForm):
    """Cosine from the optimizer's weight decay to ``end_factor`` times that at the last step; 0 stays 0."""

    def __init__(self, optimizer: Optimizer | OptimWrapper, end: int, end_factor: float = 5.0, **kwargs: Any) -> None:
        self.end_factor = end_factor
        super().__init__(optimizer, 'weight_decay', end=end, **kwargs)

    def _get_value(self):
        return [decay * self._cosine(0, self.end_factor) for decay in self.base_values]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DecayGroups:
    """Two parameter groups: with weight decay, and without.

    Without are parameters of one dimension, which biases, norms and layer scale are, and those that the model names
    in ``no_weight_decay()`` (mask tokens). The model is a
    :class:`~spark_bench.models.pretraining.PretrainingModel`.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = self.wrapper_cfg.pop('optimizer')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        bare = unwrap_model(model)
        exempt = bare.no_weight_decay()
        named = [(name, parameter) for name, parameter in bare.trained.named_parameters() if parameter.requires_grad]
        decayed = [parameter for name, parameter in named if parameter.dim() > 1 and name not in exempt]
        others = [parameter for name, parameter in named if parameter.dim() <= 1 or name in exempt]
        groups = [dict(params=decayed), dict(params=others, weight_decay=0.0)]
        optimizer = OPTIMIZERS.build(self.optimizer_cfg, default_args=dict(params=groups))
        self.wrapper_cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(self.wrapper_cfg, default_args=dict(optimizer=optimizer))
