"""Detection given what real life gives: a line and a remedy, or a run that copes; nothing stays in the way."""

import json
import os
import re
import runpy
import subprocess
import sys

import pytest
import torch
from mmengine.config import ConfigDict
from safetensors.torch import load_file, save_file
from small_recipes import ROOT, record_of, tiny, words
from together import together

from spark_bench import commands
from spark_bench.data import detection
from spark_bench.data.check.coco import Split
from spark_bench.errors import InputError
from spark_bench.runs.detect import Detection
from spark_bench.training.runner import BenchRunner


def run(capsys, arguments):
    """(status, the line that tells the error)."""
    status = commands.main([str(word) for word in arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('spark-bench')]
    assert len(lines) == (status != 0), lines
    return status, ''.join(lines)


def demo(data, folder, *extra):
    return [
        'detect',
        '--data-root',
        data,
        '--work-dir',
        folder / 'work',
        '--results',
        folder / 'results',
        '--threads',
        '1',
        *extra,
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'global_batch=2',
    ]


@pytest.mark.slow
def test_every_kind_of_image_and_gaps_in_ids_train_and_evaluate(boxes, tmp_path, capsys):
    assert run(capsys, words(tiny(tmp_path), boxes, tmp_path))[0] == 0
    record = record_of(tmp_path)
    assert record['dataset']['train_images'] == 8 and len(record['curves']['loss']) == 2
    found = json.loads((tmp_path / 'work/predictions.segm.json').read_text())
    assert {entry['category_id'] for entry in found} <= {900, 3, 57}
    categories = json.loads((tmp_path / 'work/categories.json').read_text())['categories']
    assert [(entry['id'], entry['objects']) for entry in categories] == [(3, 0), (57, 4), (900, 4)]


def test_a_val_split_without_annotations_is_refused(boxes, tmp_path, capsys):
    path = boxes / 'annotations/instances_val.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'annotations': []}))
    status, error = run(capsys, demo(boxes, tmp_path))
    assert status == 2 and f"{path} is of no use: 'annotations' is empty" in error
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('recipe', ['demo', 'spark'])
def test_a_training_set_without_objects_is_refused(recipe, boxes, tmp_path, capsys):
    path = boxes / 'annotations/instances_train.json'
    contents = json.loads(path.read_text())
    path.write_text(json.dumps(contents | {'annotations': contents['annotations'][:1]}))
    status, error = run(capsys, words(tiny(tmp_path), boxes, tmp_path) if recipe == 'spark' else demo(boxes, tmp_path))
    assert status == 2 and '1 images to learn from' in error and 'fewer than one batch of 2: lower it' in error
    assert 'global_batch=' in error
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('settings', [{}, {'filter_cfg': None}, {'filter_cfg': {'filter_empty_gt': False}}])
def test_images_without_an_object_are_refused_where_the_recipe_filters_nothing(settings, tmp_path):
    this = object.__new__(Detection)
    this.train_split = Split('train', tmp_path / 'instances_train.json', tmp_path, sizes={'a.png': (64, 48)})
    this.cfg = ConfigDict(train_dataloader=dict(dataset=settings))
    with pytest.raises(InputError, match='has no object to learn from in images of at least 0 pixels'):
        this.demand_batch()


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_image_that_breaks_on_the_way_is_named_in_one_line(split, boxes, tmp_path, capsys, monkeypatch):
    """As in a set too large to be decoded beforehand, read by a process of the loader."""
    monkeypatch.setattr(detection, 'DECODE_LIMIT', 0)
    for path in (boxes / split).iterdir():
        path.write_bytes(path.read_bytes()[:300])
    status, error = run(capsys, demo(boxes, tmp_path, '--workers', '1'))
    assert status == 2 and error.startswith(f'spark-bench: error: image {boxes / split}/')
    assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize(
    'text, named',
    [
        ('x = 1', 'has no model'),
        ('model = 5', 'has no model'),
        ('import nothere', 'nothere|no model'),
        ('x = (1,', 'never closed'),
        ("_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py']\nauto_scale_lr = None", 'has no global_batch'),
        ("_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py']", 'names no architecture'),
        ("_base_ = ['pretrain/configs/demo_pretrain.py']", 'has no backbone'),
        ("_base_ = ['pretrain/configs/demo_finetune.py']", 'has no backbone'),
        (
            "_base_ = ['mmdet_configs/demo/mask-rcnn_demo.py']\n"
            "model = dict(_delete_=True, type='RetinaNet', neck=dict(), "
            "backbone=dict(type='SparKTimm', arch='test_resnet'))",
            'has neither model.neck nor model.panoptic_head',
        ),
    ],
)
def test_a_config_that_is_no_recipe_is_refused(text, named, boxes, tmp_path, capsys):
    (tmp_path / 'config.py').write_text(re.sub("'(pretrain|mmdet_configs)/", rf"'{ROOT}/\1/", text))
    status, error = run(
        capsys,
        [
            'detect',
            tmp_path / 'config.py',
            '--data-root',
            boxes,
            '--work-dir',
            tmp_path / 'work',
            '--results',
            tmp_path / 'results',
        ],
    )
    assert status == 2 and re.search(named, error), error
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('option', ['--results', '--work-dir'])
@pytest.mark.parametrize('command', ['detect', 'evaluate'])
def test_a_place_that_cannot_be_written_is_named_before_training(command, option, boxes, tmp_path, capsys):
    if (command, option) == ('evaluate', '--results'):
        pytest.skip('evaluate writes no record')
    (tmp_path / 'file').write_text('')
    save_file({'a': torch.ones(1)}, tmp_path / 'data/some.safetensors')
    weights = ['--weights', tmp_path / 'data/some.safetensors'] if command == 'evaluate' else []
    arguments = [command, *demo(boxes, tmp_path, *weights)[1:]]
    arguments[arguments.index(option) + 1] = tmp_path / 'file' / 'deeper'
    if command == 'evaluate':
        at = arguments.index('--results')
        del arguments[at : at + 2]
    status, error = run(capsys, arguments)
    assert status == 2 and option in error and str(tmp_path / 'file') in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ['data', 'file']


@pytest.mark.parametrize('option', ['--results', '--work-dir'])
@pytest.mark.parametrize(
    'command',
    [
        ['finetune', '--weights', 'scratch', '--cfg-options', 'global_batch=12'],
        ['pretrain', '--cfg-options', 'global_batch=8'],
        ['evaluate', '--protocol', 'knn', '--arch', 'test_resnet'],
    ],
)
def test_so_is_one_of_the_runs_on_images(command, option, images, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    places = {
        name: tmp_path / 'file' / 'deeper' if name == option else tmp_path / 'other'
        for name in ('--work-dir', '--results')
    }
    given = [word for place in places.items() for word in place]
    status, error = run(capsys, [*command, '--data-root', images, *given])
    assert status == 2 and option in error and str(tmp_path / 'file') in error
    assert not (tmp_path / 'other').exists()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_results_without_permission_are_named_before_training(boxes, tmp_path, capsys):
    (tmp_path / 'results').mkdir(mode=0o500)
    status, error = run(capsys, demo(boxes, tmp_path))
    assert status == 2 and '--results' in error and not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    'mistake, named',
    [
        (['--weights', 'wrong.pth'], 'wrong.pth does not fit'),
        (['--cfg-options', 'model.neck.typo=1'], "'typo'"),
        (['--cfg-options', 'model.backbone.drop_path_rate=1.5'], 'drop_path_rate is 1.5'),
        (['--cfg-options', 'test_dataloader.dataset.typo=1'], "'typo'"),
        (['--cfg-options', 'optim_wrapper.optimizer.lr=-1'], 'learning rate'),
    ],
)
def test_after_a_mistake_the_same_folder_serves(mistake, named, boxes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'layer1.0.conv1.weight': torch.zeros(3), 'layer4.0.conv1.weight': torch.zeros(3)}, 'wrong.pth')
    arguments = demo(boxes, tmp_path)
    status, error = run(
        capsys,
        [*arguments, *mistake[1:]] if mistake[0] == '--cfg-options' else [*arguments[:1], *mistake, *arguments[1:]],
    )
    assert status == 2 and named in error
    assert not (tmp_path / 'results').exists() and not list((tmp_path / 'work').glob('*.pth'))
    if mistake[0] == '--weights':
        assert run(capsys, arguments)[0] == 0


@pytest.mark.slow
def test_killed_while_it_evaluates_a_run_is_not_trained_again(boxes, tmp_path, monkeypatch):
    """Three updates are no whole number of epochs, and no checkpoint was asked for in mid-epoch."""
    config = tiny(tmp_path, **{'train_cfg.max_updates': 4})
    assert commands.main(words(config, boxes, tmp_path / 'whole')) == 0
    with monkeypatch.context() as patch:
        patch.setattr(BenchRunner, 'test', lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert commands.main(words(config, boxes, tmp_path / 'parts')) == 130
    from spark_bench.training.loop import UpdateLoop

    monkeypatch.setattr(UpdateLoop, '_train_on', lambda self, batches: pytest.fail('trained again'))
    assert commands.main(words(config, boxes, tmp_path / 'parts')) == 0
    whole, parts = (load_file(tmp_path / name / 'work/detector.safetensors') for name in ('whole', 'parts'))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    records = [record_of(tmp_path / name) for name in ('whole', 'parts')]
    assert records[0]['curves'] == records[1]['curves'] and records[0]['metrics'] == records[1]['metrics']


def test_what_two_processes_find_wrong_is_told_once(boxes, tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.zeros(3), 'layer4.0.conv1.weight': torch.zeros(3)}, tmp_path / 'w.pth')
    arguments = words(tiny(tmp_path), boxes, tmp_path)
    arguments[arguments.index('scratch')] = str(tmp_path / 'w.pth')
    done = together(arguments)
    told = [line for line in done.stderr.splitlines() if 'spark-bench: error' in line]
    assert done.returncode != 0 and len(told) == 1 and 'w.pth does not fit' in told[0], told


def tool(monkeypatch, name, *arguments):
    """Run a script of ``tools/`` in this process; returns its exit status."""
    monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
    return stopped.value.code


@pytest.mark.slow
def test_openmmlabs_scripts_train_and_test(boxes, tmp_path, monkeypatch):
    data = ['--data-root', boxes, '--threads', '1']
    config = ROOT / 'mmdet_configs/demo/mask-rcnn_demo.py'
    # From a fresh interpreter, as a user starts it.
    arguments = [
        ROOT / 'tools/train.py',
        config,
        '--work-dir',
        tmp_path / 'work',
        '--resume',
        'auto',
        '--auto-scale-lr',
        *data,
        '--results',
        tmp_path / 'results',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'global_batch=2',
        'default_hooks.logger.interval=1',
    ]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    trained = subprocess.run([sys.executable, *map(str, arguments)], env=environment, timeout=200, check=False)
    tested = tool(
        monkeypatch,
        'test.py',
        config,
        tmp_path / 'work/detector.safetensors',
        *data,
        '--work-dir',
        tmp_path / 'test',
        '--cfg-options',
        'test_dataloader.batch_size=1',
    )
    assert (trained.returncode, tested) == (0, 0)
    metrics = [json.loads((tmp_path / name / 'metrics.json').read_text()) for name in ('work', 'test')]
    assert metrics[0].keys() == metrics[1].keys()


@pytest.mark.parametrize(
    'name, arguments, named',
    [
        ('test.py', ['config.py'], 'CONFIG and CHECKPOINT'),
        ('test.py', ['config.py', '--work-dir', 'x'], 'CHECKPOINT first'),
        ('train.py', ['config.py', '--validate'], '--validate'),
        ('train.py', ['absent.py'], 'absent.py'),
        ('test.py', ['absent.py', 'w.pth', '--show'], '--show'),
    ],
)
def test_openmmlabs_scripts_refuse_in_one_line(name, arguments, named, monkeypatch, capsys):
    assert tool(monkeypatch, name, *arguments) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert named in line
