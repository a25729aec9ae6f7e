"""A pretraining that is killed again and again ends as one that never was."""

import json
import logging
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from killing import finish, kill, start
from mmengine.logging import MessageHub
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spark_bench.errors import InputError
from spark_bench.files import beside
from spark_bench.training.resume import (
    ResumePointHook,
    checkpoints_of,
    clear_leftovers,
    newest_checkpoint,
    random_states,
    read_checkpoint,
)

UPDATES = 8
SMALL = [
    'train_dataloader.dataset.input_size=64',
    'model.input_size=64',
    'model.decoder_width=32',
    'model.drop_path_rate=0.3',
    'custom_hooks.1.interval=1',
]
# One recipe draws its augmentation from the process's generator, the other an image at a time, in workers.
CASES = {
    'process': (['--arch', 'test_resnet', '--workers', '0'], ['global_batch=4']),
    'workers': (
        [
            'pretrain/configs/spark_convnext-tiny_1600e.py',
            '--arch',
            'test_convnext',
            '--workers',
            '2',
            '--batch-size',
            '2',
        ],
        ['global_batch=4', 'base_lr=0.3', 'param_scheduler.0.warmup=1'],
    ),
}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for i in range(18):
        colours = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((80, 72)).save(folder / f'{i:02}.png')
    return folder


def arguments(case, images, folder):
    chosen, settings = CASES[case]
    return [
        'pretrain',
        *chosen,
        '--data-root',
        str(images),
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--threads',
        '1',
        '--epochs',
        '2',
        '--checkpoint-interval',
        '2',
        '--image-interval',
        '1',
        '--seed',
        '7',
        '--cfg-options',
        *SMALL,
        *settings,
    ]


def attempt(case, images, folder):
    """Start the command in a process of its own group; return it."""
    folder.mkdir(exist_ok=True)
    return start(arguments(case, images, folder), folder / 'log.txt')


def result(folder):
    [path] = (folder / 'results').rglob('*.json')
    return load_file(folder / 'work' / 'spark.safetensors'), json.loads(path.read_text())['curves']['loss']


@pytest.fixture(scope='module', params=list(CASES))
def undisturbed(request, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    finish(attempt(request.param, images, folder), folder)
    return request.param, folder


def kill_often(case, images, folder, rng, most):
    """Kill the run up to ``most`` times, each time a while after it has got on; let it end then. Returns the kills."""
    kills = 0
    while True:
        process = attempt(case, images, folder)
        before = checkpoints_of(folder / 'work')
        while kills < most and process.is_alive() and checkpoints_of(folder / 'work')[:1] == before[:1]:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.4))
        if kills == most or not process.is_alive():
            finish(process, folder)
            return kills
        kill(process)
        kills += 1


def compare(undisturbed, folder):
    (weights, curve), (others, other_curve) = result(undisturbed), result(folder)
    assert len(curve) == UPDATES and curve == other_curve
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_killed_at_random_steps_it_ends_with_the_same_bits(undisturbed, images, tmp_path):
    case, reference = undisturbed
    assert kill_often(case, images, tmp_path, random.Random(1), most=3) >= 1
    compare(reference, tmp_path)
    assert not checkpoints_of(tmp_path / 'work') and not list((tmp_path / 'work').glob('.epoch*'))
    events = EventAccumulator(str(tmp_path / 'work' / 'tensorboard'), size_guidance={'scalars': 0}).Reload()
    steps = [event.step for event in events.Scalars('train/loss')]
    assert steps == list(range(1, UPDATES + 1)), 'no gap and nothing twice'
    values = [event.value for event in events.Scalars('train/loss')]
    assert np.allclose(values, [loss for _, loss in result(reference)[1]], rtol=1e-6)
    assert {Path(path).name for path in (tmp_path / 'work' / 'reconstructions').iterdir()} == {
        f'epoch_{epoch:04}.png' for epoch in (1, 2)
    }


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(4))
def test_killed_many_times_it_ends_with_the_same_bits(undisturbed, images, tmp_path, seed):
    case, reference = undisturbed
    kill_often(case, images, tmp_path, random.Random(seed), most=10)
    compare(reference, tmp_path)


@pytest.mark.parametrize(
    'changed',
    [['--workers', '0', '--image-interval', '0'], ['--workers', '3', '--checkpoint-interval', '5']],
    ids=' '.join,
)
def test_workers_images_and_checkpoints_change_no_bit_and_no_hash(undisturbed, images, tmp_path, changed):
    case, reference = undisturbed
    if case == 'process':
        changed = ['--workers', '0', *changed[2:]]  # the demo's recipe draws from the process, as it says
    words = arguments(case, images, tmp_path)
    for option, value in zip(changed[::2], changed[1::2], strict=True):
        words[words.index(option) + 1] = value
    finish(start(words, tmp_path / 'log.txt'), tmp_path)
    compare(reference, tmp_path)
    hashes = [(folder / 'work' / 'recipe.json').read_text() for folder in (reference, tmp_path)]
    assert hashes[0] == hashes[1]


def test_a_damaged_newest_checkpoint_is_passed_over(undisturbed, images, tmp_path):
    case, reference = undisturbed
    process = attempt(case, images, tmp_path)
    while len(checkpoints_of(tmp_path / 'work')) < 2:
        assert process.is_alive(), (tmp_path / 'log.txt').read_text()[-3000:]
        time.sleep(0.01)
    kill(process)
    newest, before = checkpoints_of(tmp_path / 'work')
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert newest_checkpoint(tmp_path / 'work') == before
    finish(attempt(case, images, tmp_path), tmp_path)
    compare(reference, tmp_path)


def test_a_checkpoint_that_would_run_code_is_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'trapped'),)

    torch.save({'state_dict': Trap()}, tmp_path / 'epoch_1.pth')
    with pytest.raises(InputError, match='epoch_1.pth'):
        read_checkpoint(tmp_path / 'epoch_1.pth')
    assert not (tmp_path / 'trapped').exists()


def test_what_a_killed_attempt_was_writing_is_cleared_and_nothing_else(tmp_path):
    kept = [tmp_path / name for name in ('epoch_1.pth', '.lock', 'reconstructions/epoch_0001.png', 'notes.tmp')]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'x')
    for path in (kept[0], kept[2], tmp_path / 'progress.json'):
        beside(path).write_bytes(b'half')
    clear_leftovers(tmp_path)
    assert sorted(path for path in tmp_path.rglob('*') if path.is_file()) == sorted(kept)


def test_the_newest_checkpoints_stay_whatever_lies_beside_them(tmp_path):
    class Saving:
        work_dir, max_iters, iter, train_dataloader, message_hub = tmp_path, 40, 0, range(4), MessageHub('saving')

        def save_checkpoint(self, folder, name, **_):
            (folder / name).write_bytes(b'x')

    with pytest.raises(InputError, match='default_hooks.checkpoint.keep is -1: give the number that stays'):
        ResumePointHook(keep=-1)
    for damaged in ('epoch_8.pth', 'epoch_9.pth'):
        (tmp_path / damaged).write_bytes(b'')
    hook, runner = ResumePointHook(keep=2), Saving()
    for epoch in range(1, 6):
        runner.iter = 4 * epoch - 1
        hook.after_train_iter(runner, 3)
    assert [path.name for path in checkpoints_of(tmp_path)] == [f'epoch_{n}.pth' for n in (9, 8, 5, 4)]


def test_numbers_are_drawn_anew_where_the_processes_are_others(tmp_path):
    torch.manual_seed(3)
    first = torch.rand(8)
    torch.rand(10_000)
    runner, states = SimpleNamespace(logger=logging.getLogger()), [random_states()] * 2
    drawn = []
    for _ in range(2):
        ResumePointHook().after_load_checkpoint(runner, {'message_hub': {'log_scalars': {}}, 'random_state': states})
        drawn.append([*torch.rand(8).tolist(), np.random.rand(), random.random()])
    assert not set(drawn[0]).intersection(first.tolist())
    assert drawn[0] == drawn[1], 'of one checkpoint always the same'
