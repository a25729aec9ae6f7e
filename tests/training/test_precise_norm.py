"""Precise batch norm gives the statistics of all values of its batches taken together, with the weights untouched."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
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
    PreciseBatchNormHook(updates=2).after_train(
        SimpleNamespace(
            model=model,
            logger=logging.getLogger('test'),
            max_epochs=1,
            train_dataloader=Loader([batches[:2], batches[2:4], batches[4:]]),
        )
    )
    values = torch.cat([model.conv(batch).transpose(0, 1).flatten(1) for batch in batches[:4]], dim=1).detach()
    torch.testing.assert_close(model.norm.running_mean, values.mean(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.norm.running_var, values.var(1, correction=0), rtol=1e-12, atol=1e-12)
    assert model.norm.momentum == 0.1 and not model.norm._forward_hooks
    assert torch.equal(model.frozen.running_mean, frozen)
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())


def parts():
    """Of two processes: batches of unlike means, spreads and sizes."""
    draw = torch.Generator().manual_seed(0)
    widths = [(5, 6, 7), (9, 7, 5)]
    return [
        [torch.randn(2, 3, 4, width, generator=draw).double() * (i + 1) + 5 * rank for i, width in enumerate(own)]
        for rank, own in enumerate(widths)
    ]


def take_part(rank, folder):
    # A forked process has none of the threads that earlier tests may have computed with, and would wait for them.
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
    torch.manual_seed(0)
    model = Model(SyncBatchNorm2d).double()
    PreciseBatchNormHook().after_train(
        SimpleNamespace(
            model=model,
            logger=logging.getLogger('test'),
            max_epochs=1,
            train_dataloader=Loader([batch] for batch in parts()[rank]),
        )
    )
    torch.save([model.norm.running_mean, model.norm.running_var], Path(folder) / f'{rank}.pth')
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # nothing of the parent's is torn down


def test_synchronised_norms_count_the_positions_of_all_processes(tmp_path):
    multiprocessing.start_processes(take_part, (str(tmp_path),), nprocs=2, start_method='fork')
    torch.manual_seed(0)
    model = Model(nn.BatchNorm2d).double()
    values = torch.cat([model.conv(batch).transpose(0, 1).flatten(1) for batches in parts() for batch in batches], 1)
    for rank in range(2):
        mean, variance = torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        torch.testing.assert_close(mean, values.detach().mean(1), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(variance, values.detach().var(1, correction=0), rtol=1e-12, atol=1e-12)
