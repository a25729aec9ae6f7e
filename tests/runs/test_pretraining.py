"""What a pretraining leaves behind, and what its options change."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain import build_spark
from spark_bench import checkpoints, commands
from spark_bench.models.pretrainer import SparKPretrainer
from spark_bench.training.loop import UpdateOptimWrapper
from spark_bench.training.monitoring import image_grid
from spark_bench.training.reconstruction import reconstruct


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for i in range(12):
        colours = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((70, 70)).save(folder / f'{i:02}.png')
    return folder


def pretrain(images, folder, *extra, settings=()):
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
            *extra,
            '--cfg-options',
            'model.input_size=64',
            'train_dataloader.dataset.input_size=64',
            'model.decoder_width=32',
            'global_batch=4',
            *settings,
        ]
    )


def record_of(folder):
    [path] = (folder / 'results').rglob('*.json')
    return json.loads(path.read_text())


@pytest.fixture(scope='module')
def finished(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('finished')
    assert pretrain(images, folder, '--epochs', '4', '--image-interval', '2') == 0
    return folder


def test_the_whole_model_can_be_built_again_from_its_file(finished):
    path = finished / 'work' / 'spark.safetensors'
    told = checkpoints.read_metadata(path)
    assert (told['ablation'], told['epochs'], told['method']) == ('spark', '4', 'spark')
    model = build_spark(
        told['arch'],
        int(told['input_size']),
        float(told['mask_ratio']),
        told['ablation'],
        decoder_width=int(told['decoder_width']),
    )
    model.load_state_dict(checkpoints.read_tensors(path), strict=True)
    encoder = checkpoints.read_tensors(finished / 'work' / 'encoder.safetensors')
    network = model.encoder.pyramid.network.state_dict()
    assert encoder.keys() == network.keys() and all(torch.equal(encoder[name], network[name]) for name in encoder)
    assert record_of(finished)['artifacts']['spark'] == str(path)


def test_the_time_left_is_told_before_the_first_epoch_ends(images, tmp_path):
    # Three updates an epoch: the ten that it waits for at most would be in the fourth.
    assert pretrain(images, tmp_path, '--epochs', '2', settings=['custom_hooks.0.steps=2']) == 0
    [log] = (tmp_path / 'work').glob('*/*.log')
    lines = log.read_text().splitlines()
    told = next(i for i, line in enumerate(lines) if 'left: ' in line)
    assert re.search(r'about \d+:\d\d:\d\d left: 4 of 6 updates', lines[told])
    assert told < next(i for i, line in enumerate(lines) if 'Epoch(train) [1][3/3]' in line)


def test_reconstructions_are_drawn_every_so_often(finished):
    folder = finished / 'work' / 'reconstructions'
    assert sorted(path.name for path in folder.iterdir()) == ['epoch_0002.png', 'epoch_0004.png']
    with Image.open(folder / 'epoch_0004.png') as grid:
        assert grid.size == (4 * 68 - 4, 6 * 68 - 4)
        last = np.load(finished / 'work' / 'reconstructions.npz')
        assert np.array_equal(np.asarray(grid), image_grid(last)), 'the last epoch is what the record shows'
        assert np.array_equal(np.asarray(grid)[:64, :64], last['original'][0])


def test_drawing_disturbs_neither_the_mode_nor_statistics_nor_generators():
    model = SparKPretrainer(
        arch='test_resnet',
        input_size=64,
        decoder_width=32,
        data_preprocessor=dict(type='mmengine.ImgDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3),
    ).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    reconstruct(model, np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8))
    assert model.spark.training and all(module.training for module in model.spark.modules())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bfloat16_and_channels_last_train_to_nearly_the_same_loss(finished, images, tmp_path):
    losses = {'plain': record_of(finished)['curves']['loss']}
    hashes = {'plain': record_of(finished)['config_hash']}
    for name, option in (('amp', '--amp'), ('layout', '--channels-last')):
        assert pretrain(images, tmp_path / name, '--epochs', '4', option) == 0
        record = record_of(tmp_path / name)
        losses[name], hashes[name] = record['curves']['loss'], record['config_hash']
    plain, amp, layout = (np.array(losses[name])[:, 1] for name in ('plain', 'amp', 'layout'))
    assert np.allclose(layout, plain, rtol=1e-3) and np.allclose(amp, plain, rtol=0.02)
    assert not np.array_equal(amp, plain), 'autocast was on'
    assert hashes['amp'] != hashes['plain'] == hashes['layout']


def test_accumulated_batches_give_the_gradient_of_the_whole_one():
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.spark = torch.nn.Linear(5, 1, dtype=torch.float64)

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, 5, generator=draw, dtype=torch.float64)
    weights = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = Linear()
        wrapper = UpdateOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=parts)
        wrapper.initialize_count_status(model, 7, 100)  # taken up after seven updates: no part is lost
        for update in x:
            for part in update.chunk(parts):
                with wrapper.optim_context(model):
                    loss = model.spark(part).square().mean()
                wrapper.update_params(loss)
            whole = wrapper.last_loss
        weights.append((model.spark.weight.detach(), whole))
    assert torch.allclose(weights[0][0], weights[1][0], rtol=1e-12) and weights[0][1] == pytest.approx(weights[1][1])


@pytest.mark.parametrize(
    'extra, message',
    [
        (['--cfg-options', 'global_batch=4', '--batch-size', '3'], 'choose 1, 2 or 4'),
        (['--cfg-options', 'global_batch=4', '--accumulate', '3'], 'choose 1, 2 or 4'),
        (['--cfg-options', 'global_batch=13'], 'fewer than one batch of 13'),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_before_anything_is_written(images, tmp_path, capsys, extra, message):
    words = [
        'pretrain',
        '--data-root',
        str(images),
        '--work-dir',
        str(tmp_path / 'work'),
        '--results',
        str(tmp_path / 'results'),
    ]
    assert commands.main([*words, *extra]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and '\n' not in error and not (tmp_path / 'work').exists()


def test_runs_begun_in_the_same_second_keep_their_curves_and_logs_apart(images, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.time.time', lambda: 1_700_000_000.0)
    for name in ('first', 'second'):
        assert pretrain(images, tmp_path / name, '--epochs', '1') == 0
        assert [step for step, _ in record_of(tmp_path / name)['curves']['loss']] == [1, 2, 3]
        [log] = (tmp_path / name / 'work').glob('*/*.log')
        assert 'Epoch(train) [1][3/3]' in log.read_text()
