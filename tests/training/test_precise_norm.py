"""Precise batch norm gives the plain averages of batch statistics, with the weights untouched."""

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
def test_statistics_are_the_average_over_batches(norm):
    torch.manual_seed(0)
    model = Model(norm)
    batches = [torch.randn(2, 3, 5, 5) * (i + 1) for i in range(6)]
    for _ in range(20):
        model(batches[0], mode='loss')  # leave something to be corrected
    weights = {name: value.clone() for name, value in model.named_parameters()}
    frozen = model.frozen.running_mean.clone()
    PreciseBatchNormHook(updates=2).after_train(SimpleNamespace(
        model=model, logger=logging.getLogger('test'), max_epochs=1,
        train_dataloader=Loader([batches[:2], batches[2:4], batches[4:]])))
    outputs = [model.conv(batch).transpose(0, 1).flatten(1) for batch in batches[:4]]
    expected_mean = torch.stack([output.mean(1) for output in outputs]).mean(0)
    expected_variance = torch.stack([output.var(1) for output in outputs]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, expected_mean)
    torch.testing.assert_close(model.norm.running_var, expected_variance)
    assert model.norm.momentum == 0.1 and torch.equal(model.frozen.running_mean, frozen)
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
