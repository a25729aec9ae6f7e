"""Precise batch norm: statistics with the final weights, in place of a running average over changing ones."""

import itertools
from typing import TYPE_CHECKING

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

if TYPE_CHECKING:
    from mmengine.runner import Runner


@HOOKS.register_module()
class PreciseBatchNormHook(Hook):
    """When training ends, average each batch norm's statistics anew over batches of the training set.

    The batches pass through the model as in training, losses and all, so that the batch norms of RoI heads see the
    RoIs that they were trained on; no weight changes. Norms in evaluation mode (frozen ones) keep their statistics.
    Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576, section 3; detectron2's
    ``TEST.PRECISE_BN``.

    Args:
        updates: batches of a whole update's images that are averaged over, at most an epoch's.
    """

    priority = 'VERY_LOW'

    def __init__(self, updates: int = 200) -> None:
        self.updates = updates

    def after_train(self, runner: 'Runner') -> None:
        """Recompute; the evaluation that follows sees the result."""
        model = getattr(runner.model, 'module', runner.model)
        model.train()
        norms = [module for module in model.modules()
                 if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training]
        if not norms:
            return
        runner.logger.info(f'precise batch norm: {len(norms)} layers over {self.updates} updates')
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average
        loader = runner.train_dataloader
        loader.sampler.set_epoch(runner.max_epochs)
        with torch.no_grad():
            for batches in itertools.islice(loader, self.updates):
                for batch in batches:
                    model(**model.data_preprocessor(batch, True), mode='loss')
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
