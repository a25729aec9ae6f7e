"""k-NN of the encoder while it is pretrained: what ``evaluate`` finds, and no bit of the training."""

import json

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file
from sampling import all_but

from spark_bench import commands

LITTLE = [
    '--cfg-options',
    'global_batch=8',
    'model.input_size=64',
    'train_dataloader.dataset.input_size=64',
    'model.decoder_width=32',
]


def pretrain(images, folder, *extra, arch='test_resnet'):
    return [
        'pretrain',
        '--data-root',
        str(images / 'train'),
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--threads',
        '1',
        '--workers',
        '0',
        '--epochs',
        '3',
        '--arch',
        arch,
        *extra,
        *LITTLE,
    ]


def record_of(folder):
    [path] = (folder / 'results').rglob('*.json')
    return json.loads(path.read_text())


@pytest.mark.parametrize('arch', ['test_resnet', pytest.param('test_convnext', marks=pytest.mark.slow)])
def test_knn_during_training_is_what_evaluate_finds_and_changes_no_bit(arch, images, tmp_path, capsys):
    watched, plain = tmp_path / 'watched', tmp_path / 'plain'
    probe = ['--probe', 'knn', '--probe-interval', '2', '--probe-data', str(images)]
    assert commands.main(pretrain(images, watched, *probe, arch=arch)) == 0
    assert commands.main(pretrain(images, plain, arch=arch)) == 0
    for name in ('encoder', 'spark'):
        one, two = (load_file(folder / f'work/{name}.safetensors') for folder in (watched, plain))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    records = record_of(watched), record_of(plain)
    assert records[0]['config_hash'] == records[1]['config_hash'] and records[0]['recipe'] == records[1]['recipe']
    assert records[0]['curves']['loss'] == records[1]['curves']['loss'] and set(records[1]['curves']) == {'loss'}
    capsys.readouterr()
    assert commands.main(pretrain(images, plain, *probe, arch=arch)) == 0
    assert 'stands, of the same run without --probe' in ''.join(capsys.readouterr())
    curve = records[0]['curves']['top1_knn']
    assert [epoch for epoch, _ in curve] == [2, 3]
    assert (
        commands.main(
            [
                'evaluate',
                '--protocol',
                'knn',
                '--weights',
                str(watched / 'work/encoder.safetensors'),
                '--arch',
                arch,
                '--data-root',
                str(images),
                '--input-size',
                '64',
                '--threads',
                '1',
                '--results',
                str(tmp_path / 'knn/results'),
                '--work-dir',
                str(tmp_path / 'knn/work'),
            ]
        )
        == 0
    )
    assert record_of(tmp_path / 'knn')['metrics']['top1'] == curve[-1][1]


@pytest.mark.parametrize('method', all_but(['simmim', 'byol'], ['mae', 'simmim', 'byol', 'supervised']))
def test_the_encoder_of_every_method_is_probed_at_the_side_that_it_learns_from(method, images, tmp_path):
    labelled = images if method == 'supervised' else images / 'train'
    folders = ['--work-dir', str(tmp_path / 'work'), '--results', str(tmp_path / 'results'), '--threads', '1']
    assert (
        commands.main(
            [
                'pretrain',
                '--method',
                method,
                '--data-root',
                str(labelled),
                '--epochs',
                '1',
                *folders,
                '--workers',
                '0',
                '--probe',
                'knn',
                '--probe-data',
                str(images),
                '--cfg-options',
                'global_batch=8',
                *(['model.window_size=2'] if method == 'simmim' else []),
            ]
        )
        == 0
    )
    record = record_of(tmp_path)
    [[epoch, top1]] = record['curves']['top1_knn']
    hooks = Config.fromfile(tmp_path / 'work/config.py').custom_hooks
    [hook] = [hook for hook in hooks if hook.type == 'ProbeHook']
    assert epoch == 1 and hook.input_size == 96
    folders = ['--work-dir', str(tmp_path / 'knn/work'), '--results', str(tmp_path / 'knn/results'), '--threads', '1']
    assert (
        commands.main(
            [
                'evaluate',
                '--protocol',
                'knn',
                '--weights',
                str(tmp_path / 'work/encoder.safetensors'),
                '--arch',
                record['arch'],
                '--data-root',
                str(images),
                '--input-size',
                '96',
                *folders,
            ]
        )
        == 0
    )
    assert record_of(tmp_path / 'knn')['metrics']['top1'] == top1


def test_a_probe_without_data_and_data_without_a_probe_are_refused(images, tmp_path, capsys):
    for extra in (['--probe', 'knn'], ['--probe-data', str(images)], ['--probe-interval', '2']):
        assert commands.main(pretrain(images, tmp_path, *extra)) == 2
        assert '--probe knn and --probe-data DIR go together' in capsys.readouterr().err
    assert commands.main(pretrain(images, tmp_path, '--probe', 'knn', '--probe-data', str(tmp_path / 'absent'))) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'absent does not exist' in error and not list(tmp_path.rglob('epoch_*.pth'))
