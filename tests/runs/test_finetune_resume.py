"""Fine-tuning that is killed or interrupted, and in several processes: it ends as if nothing had happened."""

import json
import random

import numpy as np
import pytest
import torch
from killing import finish, kill, start
from safetensors.torch import load_file
from small_finetuning import CLASSES, VAL, predictions_of, small, words
from small_recipes import ROOT, record_of
from together import together

from spark_bench import commands
from spark_bench.training.resume import checkpoints_of

CASE = ['--arch', 'test_convnext', '--epochs', '8', '--checkpoint-interval', '1', '--weights', 'scratch', '--seed', '3']


def run_words(images, folder):
    return words(
        images,
        folder,
        *CASE,
        recipe='finetune_convnext-small_400e',
        settings=small(64, 'custom_hooks.0.decay=0.8', 'global_batch=16', 'base_lr=0.03'),
    )


def weights_of(folder):
    return {path.name: load_file(path) for path in sorted((folder / 'work').glob('*.safetensors'))}


@pytest.fixture(scope='module')
def undisturbed(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    finish(start(run_words(images, folder), folder / 'log.txt'), folder)
    return folder


@pytest.mark.parametrize('seed', [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_killed_at_random_steps_it_ends_with_the_same_bits(undisturbed, images, tmp_path, seed):
    rng = random.Random(seed)
    kills = 0
    for _ in range(3 if seed == 0 else 8):
        process = start(run_words(images, tmp_path), tmp_path / 'log.txt')
        before = checkpoints_of(tmp_path / 'work')[:1]
        while process.is_alive() and checkpoints_of(tmp_path / 'work')[:1] == before:
            process.join(0.01)
        process.join(rng.uniform(0, 0.15))
        if not process.is_alive():
            break
        kill(process)
        kills += 1
    finish(start(run_words(images, tmp_path), tmp_path / 'log.txt'), tmp_path)
    assert kills
    ours, theirs = weights_of(tmp_path), weights_of(undisturbed)
    assert ours.keys() == theirs.keys() and len(ours) == 4
    for file, tensors in ours.items():
        assert all(torch.equal(value, theirs[file][name]) for name, value in tensors.items()), file
    assert record_of(tmp_path)['curves'] == record_of(undisturbed)['curves']
    assert record_of(tmp_path)['metrics'] == record_of(undisturbed)['metrics']
    assert len({value for _, value in record_of(undisturbed)['curves']['top1_raw']}) > 1  # there was something to lose


def test_interrupted_behind_the_last_step_it_evaluates_and_records_as_ever(undisturbed, images, tmp_path, monkeypatch):
    from spark_bench.runs.finetune import Finetuning

    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Finetuning, 'finish', broken)
        assert commands.main(run_words(images, tmp_path)) == 130
    assert not (tmp_path / 'results').exists()
    assert commands.main(run_words(images, tmp_path)) == 0
    assert record_of(tmp_path)['metrics'] == record_of(undisturbed)['metrics']
    ours, theirs = predictions_of(tmp_path, 'predictions_ema'), predictions_of(undisturbed, 'predictions_ema')
    assert (ours.scores == theirs.scores).all() and (ours.classes == theirs.classes).all()


@pytest.mark.slow
def test_two_processes_evaluate_every_image_once(images, tmp_path):
    done = together(
        words(
            images,
            tmp_path,
            '--weights',
            'scratch',
            '--epochs',
            '1',
            '--arch',
            'test_resnet',
            recipe='finetune_resnet50_300e',
            settings=small(),
        )
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('record: ') == 1
    found = predictions_of(tmp_path)
    assert len(found.labels) == CLASSES * VAL
    # One process says the same of the same weights.
    assert (
        commands.main(
            [
                'evaluate',
                '--protocol',
                'finetune',
                '--arch',
                'test_resnet',
                '--data-root',
                str(images),
                str(ROOT / 'pretrain/configs/finetune_resnet50_300e.py'),
                '--weights',
                str(tmp_path / 'work/classifier.safetensors'),
                '--work-dir',
                str(tmp_path / 'alone'),
                '--workers',
                '0',
                '--cfg-options',
                *small(),
            ]
        )
        == 0
    )
    with np.load(tmp_path / 'alone/predictions.npz') as alone:
        assert np.allclose(alone['scores'], found.scores, atol=1e-4) and (alone['labels'] == found.labels).all()
    metrics = json.loads((tmp_path / 'alone/metrics.json').read_text())
    assert metrics['top1'] == pytest.approx(record_of(tmp_path)['metrics']['top1_last_raw'])
