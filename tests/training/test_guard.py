"""A step that is not finite stops the run, names the culprit, and leaves the weights as they were."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from spark_bench import commands
from spark_bench.training import loop
from spark_bench.training.resume import newest_checkpoint, read_checkpoint


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for i in range(16):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f'{i:02}.png')
    return folder


def pretrain(images, folder, *extra):
    return commands.main(
        [
            'pretrain',
            '--data-root',
            str(images),
            '--work-dir',
            str(folder / 'work'),
            '--results',
            str(folder / 'results'),
            '--threads',
            '1',
            '--epochs',
            '3',
            *extra,
            '--cfg-options',
            'model.input_size=64',
            'train_dataloader.dataset.input_size=64',
            'model.decoder_width=32',
            'global_batch=8',
        ]
    )


def break_at(monkeypatch, step, damage):
    """Call ``damage(model)`` before the given step."""
    original = loop.PretrainLoop.run_iter

    def run_iter(self, idx, data_batch):
        if self._iter + 1 == step:
            damage(self.runner.model.spark)
        original(self, idx, data_batch)

    monkeypatch.setattr(loop.PretrainLoop, 'run_iter', run_iter)


def error_of(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if 'spark-bench: error' in line]
    assert len(lines) == 1
    return lines[0]


@torch.no_grad()
def overflow(module):
    module.weight.fill_(1e38)  # finite itself: only what it computes is not


@pytest.mark.parametrize(
    'arch, path',
    [
        ('test_resnet', 'encoder.pyramid.network.layer3.0.conv1'),
        ('test_convnext', 'encoder.pyramid.network.stages.2.blocks.0.mlp.fc1'),
        ('test_resnet', 'densify.1.proj'),
        ('test_resnet', 'decoder.dec.2.conv.0'),
    ],
)
def test_the_step_and_the_first_module_are_named(monkeypatch, images, tmp_path, capsys, arch, path):
    break_at(monkeypatch, 5, lambda spark: overflow(spark.get_submodule(path)))
    assert pretrain(images, tmp_path, '--arch', arch) == 1
    error = error_of(capsys)
    assert 'step 5 of 6' in error and re.search(rf'output of {re.escape(path)} \(', error), error
    saved = read_checkpoint(newest_checkpoint(tmp_path / 'work'))
    assert saved['meta']['iter'] == 4
    assert all(
        torch.isfinite(value).all() and value.abs().max() < 1e30
        for value in saved['state_dict'].values()
        if value.is_floating_point()
    )
    assert not (tmp_path / 'results').exists()


def test_a_parameter_that_was_not_finite_is_named(monkeypatch, images, tmp_path, capsys):
    def damage(spark):
        with torch.no_grad():
            spark.densify[0].mask_token[0, 3] = float('nan')

    break_at(monkeypatch, 3, damage)
    assert pretrain(images, tmp_path) == 1
    error = error_of(capsys)
    assert 'step 3 of 6: the loss is nan' in error and 'densify.0.mask_token held' in error


def test_a_gradient_alone_is_caught_before_it_reaches_the_weights(monkeypatch, images, tmp_path, capsys):
    after = {}

    def damage(spark):
        weight = spark.get_parameter('encoder.pyramid.network.layer2.0.conv1.weight')
        weight.register_hook(lambda gradient: gradient * float('inf'))
        after.update(spark=spark, before={name: p.detach().clone() for name, p in spark.named_parameters()})

    break_at(monkeypatch, 4, damage)
    assert pretrain(images, tmp_path) == 1
    error = error_of(capsys)
    assert 'step 4 of 6: the gradient is' in error
    assert 'gradient of encoder.pyramid.network.layer2.0.conv1.weight is not' in error
    assert all(torch.equal(p, after['before'][name]) for name, p in after['spark'].named_parameters())
