"""``--key-prefix``: which of a file's networks a run starts from, from the command line to the network."""

import pytest
import torch

from spark_bench import commands
from spark_bench.checkpoints import save
from spark_bench.errors import InputError
from spark_bench.probes.features import build_backbone
from spark_bench.records import load_all


def probe(data, folder, *extra):
    return [
        'evaluate',
        '--protocol',
        'knn',
        '--data-root',
        str(data),
        '--input-size',
        '64',
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--suite',
        'test',
        '--threads',
        '1',
        '--workers',
        '0',
        '--device',
        'cpu',
        *map(str, extra),
    ]


def measured(words):
    assert commands.main(words) == 0
    return load_all(words[words.index('--results') + 1], 'test')[0]


def refused(capsys, words, *named):
    capsys.readouterr()
    assert commands.main(words) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and all(part in error for part in named), error


def test_one_of_several_networks_is_chosen_and_is_a_start_of_its_own(images, tmp_path, capsys):
    students, teachers = (
        {
            f'{name}.backbone.{key}': value
            for key, value in build_backbone('test_resnet', seed=seed).state_dict().items()
        }
        for name, seed in (('student', 1), ('teacher', 2))
    )
    torch.save({'state_dict': {**students, **teachers}}, tmp_path / 'dino.pth')
    start = probe(images, tmp_path, '--weights', tmp_path / 'dino.pth', '--method', 'dino')
    refused(capsys, start, "'student.backbone.' (90 of 90 tensors of test_resnet)", '--key-prefix')
    student = measured([*start, '--key-prefix', 'student'])
    assert student.weights['key_prefix'] == 'student'
    capsys.readouterr()
    refused(capsys, [*start, '--key-prefix', 'teacher'], 'another configuration')
    save(build_backbone('test_resnet', seed=1), tmp_path / 'alone.safetensors', {'arch': 'test_resnet'})
    alone = measured(probe(images, tmp_path / 'alone', '--weights', tmp_path / 'alone.safetensors'))
    assert alone.metrics == student.metrics and 'key_prefix' not in alone.weights


@pytest.mark.parametrize('command', ['finetune', 'detect'])
def test_the_choice_reaches_the_network_that_is_trained(command, images, tmp_path, monkeypatch, capsys):
    seen = []

    def stop(kind, options):
        seen.append(options)
        raise InputError('seen')

    monkeypatch.setattr('spark_bench.runs.run.run', stop)
    save(build_backbone('test_resnet', seed=1), tmp_path / 'a.safetensors', {'arch': 'test_resnet'})
    start = [command, '--data-root', str(images)]
    refused(capsys, [*start, '--weights', str(tmp_path / 'a.safetensors'), '--key-prefix', 'teacher.'], 'seen')
    assert (seen[0].weights, seen[0].key_prefix) == (str(tmp_path / 'a.safetensors'), 'teacher.')
    monkeypatch.undo()
    refused(capsys, [*start, '--weights', 'scratch', '--key-prefix', 'teacher.'], '--key-prefix', 'give that with')


def test_a_classifier_and_a_detector_are_configured_with_the_chosen_network(images, boxes, tmp_path):
    from spark_bench.runs.detect import Detection
    from spark_bench.runs.finetune import Finetuning

    state = {
        f'{name}.{key}': value
        for name in ('student', 'teacher')
        for key, value in build_backbone('test_resnet', seed=len(name)).state_dict().items()
    }
    state['teacher.bn1.bias'] = state['teacher.bn1.bias'] + 1
    torch.save(state, tmp_path / 'a.pth')
    for kind, config, data in (
        (Finetuning, 'pretrain/configs/demo_finetune.py', images),
        (Detection, 'mmdet_configs/demo/mask-rcnn_demo.py', boxes),
    ):
        hashes = set()
        for prefix in ('student', 'teacher'):
            this = kind(
                kind.Options(
                    config=config,
                    suite='test',
                    method='dino',
                    data_root=str(data),
                    work_dir=str(tmp_path / 'w'),
                    results=str(tmp_path / 'r'),
                    arch='test_resnet',
                    weights=str(tmp_path / 'a.pth'),
                    key_prefix=prefix,
                    overrides={'global_batch': 2},
                )
            )
            model = this.cfg.model.get('backbone') or this.cfg.model
            assert (model.weights, model.key_prefix) == (str(tmp_path / 'a.pth'), prefix)
            hashes.add(this.identity.hash)
        assert len(hashes) == 2


def test_every_backbone_takes_the_network_that_is_chosen(tmp_path):
    from spark_bench.models.backbones import SparKTimm
    from spark_bench.models.classifier import SparKClassifier
    from spark_bench.models.detection_backbones import SparKResNet

    own = build_backbone('resnet18', seed=1).state_dict()
    torch.save(
        {
            **{f'student.{key}': value for key, value in own.items()},
            **{f'teacher.{key}': value * 2 for key, value in own.items()},
        },
        tmp_path / 'a.pth',
    )
    for build in (
        lambda **more: SparKTimm('resnet18', **more),
        lambda **more: SparKClassifier('resnet18', 3, **more),
        lambda **more: SparKResNet('resnet18', **more),
    ):
        for prefix, factor in (('student', 1), ('teacher', 2)):
            model = build(weights=str(tmp_path / 'a.pth'), key_prefix=prefix)
            model.init_weights()
            found = next(value for name, value in model.state_dict().items() if name.endswith('layer2.0.conv1.weight'))
            assert torch.equal(found, own['layer2.0.conv1.weight'] * factor)


def test_words_that_another_code_keeps_beside_its_weights_are_not_taken_for_ours(images, tmp_path):
    state = build_backbone('test_resnet', seed=1).state_dict()
    for name, said, expected in (
        ('a', {'method': 'BYOL / v2', 'config_hash': 'final'}, ('pretrained', None)),
        ('b', {'method': 'byol', 'config_hash': 'ab12ab12'}, ('byol', 'ab12ab12')),
        ('c', {'method': 'moco', 'config_hash': 123456}, ('moco', None)),
    ):
        torch.save({'model': state, 'arch': 'test_resnet', **said}, tmp_path / f'{name}.pth')
        record = measured(probe(images, tmp_path / name, '--weights', tmp_path / f'{name}.pth'))
        assert (record.method, record.weights['config_hash']) == expected
