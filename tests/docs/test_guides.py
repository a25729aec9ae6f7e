"""Every command of the guides runs as it stands, on data and recipes made small."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from published_archives import make_cells, make_cifar, write_cells, write_cifar
from small_recipes import small

from spark_bench.configs import read_config

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / 'docs' / 'guides'
DATA = Path(os.environ.get('SPARK_BENCH_TEST_DATA', ROOT.parent / 'shared' / 'data'))
SPARK_BENCH = """#!/usr/bin/env bash
exec {python} -m spark_bench "$@"
"""
# Stands in for Slurm: a job of as many tasks as it is asked for runs here, in one process; the queue is always empty.
SRUN = """#!/usr/bin/env bash
while [[ "$1" != *python* ]]; do shift; done
export SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_JOB_NODELIST=localhost
export MASTER_ADDR=127.0.0.1 MASTER_PORT={port}
exec "$@"
"""
SBATCH = """#!/usr/bin/env bash
echo "Submitted batch job $RANDOM"
"""
SQUEUE = """#!/usr/bin/env bash
exit 0
"""
# What a guide says, and what stands for it here.
SMALLER = (
    (r'/data/', '{folder}/data/'),
    (r'_coco\.py 8 ', '_coco.py 2 '),
    (r'--bootstrap 1000', '--bootstrap 20'),
    (r'run (ablation|mini|transformers)\b', r'run {folder}/suites/\1.py'),
)


def commands_of(guide):
    """The commands of a guide, in order, each on one line."""
    blocks = re.findall(r'```\n(.*?)```', (GUIDES / f'{guide}.md').read_text(), re.S)
    return [line for block in blocks for line in block.replace('\\\n', ' ').splitlines() if line.strip()]


def test_every_guide_has_commands_and_is_listed():
    listed = (ROOT / 'README.md').read_text()
    for path in GUIDES.glob('*.md'):
        assert commands_of(path.stem) and f'docs/guides/{path.name}' in listed, path.name


def make_coco(folder, source, counts=(('train2017', 6), ('val2017', 4))):
    (folder / 'annotations').mkdir(parents=True)
    for split, count in counts:
        contents = json.loads((source / f'annotations/instances_{split}.json').read_text())
        contents['images'] = contents['images'][:count]
        kept = {image['id'] for image in contents['images']}
        contents['annotations'] = [entry for entry in contents['annotations'] if entry['image_id'] in kept]
        (folder / f'annotations/instances_{split}.json').write_text(json.dumps(contents))
        (folder / split).mkdir()
        for image in contents['images']:
            shutil.copy(source / split / image['file_name'], folder / split)


def make_classes(folder, classes=4, train=18, val=3):
    rng = np.random.default_rng(0)
    for split, count in (('train', train), ('val', val)):
        for number in range(classes):
            (folder / split / f'class{number}').mkdir(parents=True)
            for i in range(count):
                noisy = np.array([number * 60, 200 - number * 50, 90]) + rng.integers(-40, 40, (8, 8, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).resize((70, 64)).save(
                    folder / split / f'class{number}' / f'{i}.png'
                )


def write_recipe(folder, recipe):
    """A small copy of a detection recipe, at its own path below ``folder``: found there before the shipped one."""
    path = folder / recipe
    path.parent.mkdir(parents=True, exist_ok=True)
    small(recipe.removeprefix('mmdet_configs/'), path.parent).rename(path)


def write_settings(folder, recipe, **settings):
    cfg = read_config(ROOT / recipe)
    cfg.merge_from_dict(settings)
    (folder / recipe).parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(folder / recipe)


def write_suite(folder, name, cells, data):
    (folder / 'suites').mkdir(exist_ok=True)
    (folder / 'suites' / f'{name}.py').write_text(f'title = {name!r}\ndata = {data!r}\ncells = {cells!r}\n')


TINY = {
    'train_cfg.max_epochs': 1,
    'global_batch': 8,
    'model.input_size': 64,
    'model.decoder_width': 32,
    'train_dataloader.dataset.input_size': 64,
}


def pretraining(methods):
    return dict(
        task='pretrain',
        arch='test_resnet',
        methods=methods,
        data='imagenet',
        overrides=TINY,
        recipe='pretrain/configs/demo_pretrain.py',
        options=dict(threads=1),
    )


def fine_tuning(methods, **more):
    return dict(
        task='classification',
        arch='test_resnet',
        methods=methods,
        data='imagenet',
        recipe='pretrain/configs/demo_finetune.py',
        options=dict(threads=1),
        overrides={'train_cfg.max_epochs': 1, 'global_batch': 8},
        **more,
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder in which commands of a guide run: the tools, spark-bench, a stand-in for Slurm, images in classes."""
    (tmp_path / 'bin').mkdir()
    for name, text in (
        ('spark-bench', SPARK_BENCH.format(python=shlex.quote(sys.executable))),
        ('srun', SRUN.format(port=29511)),
        ('sbatch', SBATCH),
        ('squeue', SQUEUE),
    ):
        path = tmp_path / 'bin' / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    for name in ('imagenet', 'classes'):
        make_classes(tmp_path / 'data' / name)
    return tmp_path


def run_guide(guide, folder):
    """Run the commands one after the other; return what each printed."""
    environment = {
        **os.environ,
        'PATH': f'{folder / "bin"}:{os.environ["PATH"]}',
        'PYTHON': sys.executable,
        'PYTHONPATH': str(ROOT),
        'OMP_NUM_THREADS': '1',
    }
    printed = {}
    for command in commands_of(guide):
        line = command
        for pattern, other in SMALLER:
            line = re.sub(pattern, other.replace('{folder}', str(folder)), line)
        done = subprocess.run(
            ['bash', '-c', line], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, f'{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
        printed[command] = done.stdout
    return printed


def coco_tiny():
    if not (DATA / 'coco_tiny').is_dir():
        pytest.skip('coco_tiny is not here: it is development data, not part of this repository')
    return DATA / 'coco_tiny'


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_coco_transfer(place):
    make_coco(place / 'data/coco', coco_tiny())
    for recipe in ('spark/mask-rcnn_resnet50_fpn_1x_coco.py', 'baselines/mask-rcnn_resnet50-scratch_fpn_1x_coco.py'):
        write_recipe(place, f'mmdet_configs/{recipe}')
    torch.save(timm.create_model('resnet50', num_classes=0).state_dict(), place / 'my_resnet50.pth')
    printed = run_guide('coco-transfer', place)
    table = next(text for command, text in printed.items() if 'table' in command)
    assert 'my_pretraining' in table and 'scratch' in table
    assert len(list((place / 'results').rglob('0.json'))) == 2


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ablation_table(place):
    write_cifar(place / 'data/cifar-10-binary.tar.gz', make_cifar()[0])
    write_cells(place / 'data/stage1_train.zip', make_cells())
    cells = [pretraining(['spark', 'no_sparse']), fine_tuning(['scratch', 'spark', 'no_sparse'])]
    write_suite(place, 'ablation', cells, {'imagenet': 'classes'})
    write_suite(
        place,
        'mini',
        [{**fine_tuning(['scratch']), 'data': 'cifar10'}],
        dict.fromkeys(('cifar10', 'nuclei', 'cifar10_tuning', 'nuclei_tuning'), 'classes'),
    )
    printed = run_guide('ablation-table', place)
    latex = (place / 'ablation.tex').read_text()
    assert '\\toprule' in latex and 'no\\_sparse' in latex
    assert any('5 recorded' in text for text in printed.values())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_transformers(place):
    make_coco(place / 'data/coco', coco_tiny())
    write_recipe(place, 'mmdet_configs/baselines/mask-rcnn_swin-base_fpn_3x_coco.py')
    torch.save(
        {'model': timm.create_model('swin_base_patch4_window7_224', num_classes=0).state_dict()},
        place / 'swin_base.pth',
    )
    write_suite(place, 'transformers', [fine_tuning(['scratch'])], {'imagenet': 'classes', 'coco': 'COCO'})
    (place / 'other_results').mkdir()
    shutil.copytree(ROOT / 'results/published', place / 'other_results/published')
    printed = run_guide('transformers', place)
    assert any('swin_base' in text for text in printed.values())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_own_data(place):
    make_coco(place / 'data/mine', coco_tiny(), (('train2017', 16), ('val2017', 4)))
    write_settings(
        place,
        'pretrain/configs/cifar10_pretrain.py',
        **{'train_cfg.max_epochs': 2, 'global_batch': 8, 'model.decoder_width': 32},
    )
    write_settings(place, 'pretrain/configs/cifar10_finetune.py', **{'train_cfg.max_epochs': 2, 'global_batch': 4})
    write_settings(place, 'mmdet_configs/mini/mask-rcnn_mini.py', **{'train_cfg.max_epochs': 1})
    printed = run_guide('own-data', place)
    table = next(text for command, text in printed.items() if ' table ' in command)
    assert 'spark' in table and 'scratch' in table


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_slurm(place):
    write_settings(
        place,
        'pretrain/configs/spark_resnet50_1600e.py',
        **{
            'model.arch': 'test_resnet',
            'train_cfg.max_epochs': 1,
            'global_batch': 8,
            'model.decoder_width': 32,
            'model.input_size': 64,
            'train_dataloader.dataset.input_size': 64,
            'train_dataloader.num_workers': 0,
        },
    )
    write_suite(place, 'ablation', [pretraining(['spark']), fine_tuning(['spark'])], {'imagenet': 'classes'})
    printed = run_guide('slurm', place)
    assert sum('submitted' in text for text in printed.values()) == 2
    assert len(list((place / 'results').rglob('pretrain/test_resnet/spark/0.json'))) == 1
