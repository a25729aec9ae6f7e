"""Precise batch norm gives the statistics of all values of its batches taken together, with the weights untouched."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spark_bench.models.sync_norm import SyncBatchNorm2d
from spark_bench.training.precise_norm import PreciseBatchNormHook


class Model(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm, self.frozen = nn.Conv2d(3, 4, 1), norm(4), nn.BatchNorm2d(4)

    def data_preprocessor(self, batch, training):
        assert training
        return {'inputs': batch}

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, inputs, mode):
        assert mode == 'loss'
        return {'loss': self.frozen(self.norm(self.conv(inputs))).sum()}


class Loader(list):
    sampler = SimpleNamespace(set_epoch=lambda epoch: None)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, SyncBatchNorm2d])
def test_statistics_are_those_of_all_values_of_the_batches(norm):
    """Batches of different means, deviations and sizes: a mean of their variances would be far from the pooled one."""
    torch.manual_seed(0)
    model = Model(norm).double()
    batches = [torch.randn(2 + i, 3, 5, 5 + 2 * i).double() * (i + 1) + 3 * i for i in range(6)]
    for _ in range(20):
        model(batches[0], mode='loss')  # leave something to be corrected
    weights = {name: value.clone() for name, value in model.named_parameters()}
    frozen = model.frozen.running_mean.clone()
    PreciseBatchNormHook(updates=2).after_train(SimpleNamespace(
        model=model, logger=logging.getLogger('test'), max_epochs=1,
        train_dataloader=Loader([batches[:2], batches[2:4], batches[4:]])))
    values = torch.cat([model.conv(batch).transpose(0, 1).flatten(1) for batch in batches[:4]], dim=1).detach()
    torch.testing.assert_close(model.norm.running_mean, values.mean(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.norm.running_var, values.var(1, correction=0), rtol=1e-12, atol=1e-12)
    assert model.norm.momentum == 0.1 and not model.norm._forward_hooks
    assert torch.equal(model.frozen.running_mean, frozen)
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
