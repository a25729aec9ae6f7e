"""Precise batch norm: statistics with the final weights, in place of a running average over changing ones."""

import itertools

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spark_bench.errors import InputError
from spark_bench.models.sync_norm import SyncBatchNorm2d
from spark_bench.training.compiling import eagerly


class _Population:
    """Mean and variance of all values a channel that passed through one norm, from those of its batches.

    A forward hook: after each batch, with a momentum of 1, the norm holds that batch's mean and unbiased variance.
    Batches count by their positions (images x height x width), and the variance has both parts, within the batches
    and between their means. Source: fvcore's ``_PopulationVarianceEstimator`` (its default since May 2021).
    """

    def __init__(self, norm: _BatchNorm):
        self.count = 0
        self.mean_C, self.variance_C = torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)

    def __call__(self, norm: _BatchNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        count, seen = _positions(norm, inputs[0]), self.count
        self.count += count
        share, between_C = count / self.count, norm.running_mean - self.mean_C
        within_C = norm.running_var * ((count - 1) / count)
        self.mean_C += share * between_C
        self.variance_C += share * (within_C - self.variance_C + (seen / self.count) * between_C.square())


def _positions(norm: _BatchNorm, x_NC: Tensor) -> int:
    """How many values a channel entered the norm's statistics, those of all processes where it is synchronised."""
    count = x_NC.new_tensor(x_NC.numel() // x_NC.shape[1], dtype=torch.long)
    if isinstance(norm, (nn.SyncBatchNorm, SyncBatchNorm2d)) and dist.is_initialized():
        dist.all_reduce(count)
    return int(count)


@HOOKS.register_module()
class PreciseBatchNormHook(Hook):
    """When training ends, take each batch norm's statistics anew over batches of the training set.

    The batches pass through the model as in training, losses and all, so that the batch norms of RoI heads see the
    RoIs that they were trained on; no weight changes. Norms in evaluation mode (frozen ones) keep their statistics.
    Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576, section 3; detectron2's
    ``TEST.PRECISE_BN``.

    Args:
        updates: batches of a whole update's images that are taken, at most an epoch's.
    """

    priority = 'VERY_LOW'

    def __init__(self, updates: int = 200):
        if not isinstance(updates, int) or updates < 1:
            raise InputError(
                f'PreciseBatchNormHook has {updates!r} updates: give a whole number from 1 up, or leave the hook out'
            )
        self.updates = updates

    def after_train(self, runner: Runner) -> None:
        """Recompute; the evaluation that follows sees the result."""
        model = unwrap_model(runner.model)
        model.train()
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
        if not norms:
            return
        runner.logger.info(f'precise batch norm: {len(norms)} layers over {self.updates} updates')
        momenta, populations = [norm.momentum for norm in norms], [_Population(norm) for norm in norms]
        hooks = [norm.register_forward_hook(population) for norm, population in zip(norms, populations, strict=True)]
        kept = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = 1.0
        loader = runner.train_dataloader
        loader.sampler.set_epoch(runner.max_epochs)
        with torch.no_grad(), eagerly():
            for batches in itertools.islice(loader, self.updates):
                for batch in batches:
                    model(**model.data_preprocessor(batch, True), mode='loss')
        for norm, momentum, hook, population, before in zip(norms, momenta, hooks, populations, kept, strict=True):
            hook.remove()
            norm.momentum = momentum
            # Where no batch came through it, its own stay.
            mean_C, variance_C = (population.mean_C, population.variance_C) if population.count else before
            norm.running_mean.copy_(mean_C)
            norm.running_var.copy_(variance_C)
