"""Whole commands held to ``data check`` on data mixed at random, as far as the first update."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from small_recipes import ROOT

from spark_bench import commands
from spark_bench.checkpoints import save
from spark_bench.data.check import check
from spark_bench.errors import InputError, RunError
from spark_bench.runs.run import Run

sys.path.append(str(Path(__file__).parents[1] / 'data'))
from random_data import mutate_classes, mutate_coco, write_classes, write_coco  # noqa: E402

READ = 'all images were read'


def read_all(*datasets):
    for dataset in datasets:
        for index in range(len(dataset)):
            dataset[index]
    raise RunError(READ)


def instead_of_training(run, check=None):
    init_default_scope(run.cfg.get('default_scope', 'mmengine'))
    loaders = [run.cfg.get(f'{name}_dataloader') for name in ('train', 'test', 'evaluation')]
    read_all(*(DATASETS.build(loader.dataset) for loader in loaders if loader is not None))


@pytest.fixture
def detector(tmp_path):
    init_default_scope('mmdet')
    model = Config.fromfile(ROOT / 'mmdet_configs/demo/mask-rcnn_demo.py').model
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = 2
    torch.manual_seed(0)
    save(MODELS.build(model), tmp_path / 'detector.safetensors', {'classes': json.dumps(['box', 'ball'])})
    return tmp_path / 'detector.safetensors'


def outcome(capsys, root, folder, command, *words):
    """'' where the command came to the end of the data, else the line that it refused with."""
    work = folder / f'{root.name}-{command[0]}-{len(command)}'
    status = commands.main(
        [
            *command,
            '--data-root',
            str(root),
            '--work-dir',
            str(work / 'w'),
            '--results',
            str(work / 'r'),
            '--threads',
            '1',
            *words,
        ]
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('spark-bench: error')]
    assert len(lines) == 1, lines
    assert (status == 1) == (READ in lines[0]) and status in (1, 2), lines
    return '' if READ in lines[0] else lines[0]


def problems_of(root):
    try:
        return check(root, workers=1).problems
    except InputError:
        return 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('layout', ['coco', 'classes'])
def test_commands_refuse_what_a_check_names_and_run_on_the_rest(layout, tmp_path, monkeypatch, capsys, detector):
    monkeypatch.setattr(Run, 'train', instead_of_training)
    monkeypatch.setattr(Runner, 'test', lambda runner: read_all(runner.test_loop.dataloader.dataset))
    write, mutate = (write_coco, mutate_coco) if layout == 'coco' else (write_classes, mutate_classes)
    detect = (['detect'], '--cfg-options', 'global_batch=1')
    evaluate = (['evaluate', '--weights', str(detector)], '--workers', '0')
    pretrain = (['pretrain'], '--cfg-options', 'global_batch=1')
    finetune = (['finetune', '--weights', 'scratch'], '--cfg-options', 'global_batch=1')
    tried = (detect, evaluate, pretrain) if layout == 'coco' else (finetune, pretrain)
    seen = set()
    for seed in range(100):
        rng, root = random.Random(10000 + seed), tmp_path / str(seed)
        write(root, rng)
        done, problems = mutate(root, rng), problems_of(root)
        told = [outcome(capsys, root, tmp_path, *command) for command in tried]
        assert problems or not any('not know' not in one and 'trained on' not in one for one in told if one), (
            seed,
            done,
            told,
        )
        seen.add((bool(problems), any(told)))
    assert {(True, True), (False, False)} <= seen
