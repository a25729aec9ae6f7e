"""The command line from outside: exit status, one readable line, and nothing half-written."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from PIL import Image

from spark_bench import commands


def run(capsys, *arguments):
    """(exit status, standard error) of one command in this process."""
    try:
        status = commands.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    return status, capsys.readouterr().err


def make_coco(root, count=8):
    """A small sound folder in COCO layout."""
    for split in ('train', 'val'):
        (root / split).mkdir(parents=True)
        (root / 'annotations').mkdir(exist_ok=True)
        images, annotations = [], []
        for i in range(count):
            Image.effect_noise((64, 48), 80).convert('RGB').save(root / split / f'{i}.jpg')
            images.append({'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48})
            annotations.append(
                {
                    'id': i + 1,
                    'image_id': i,
                    'category_id': 7,
                    'bbox': [4, 4, 30, 30],
                    'area': 900,
                    'iscrowd': 0,
                    'segmentation': [[4, 4, 34, 4, 34, 34, 4, 34]],
                }
            )
        (root / 'annotations' / f'instances_{split}.json').write_text(
            json.dumps({'images': images, 'annotations': annotations, 'categories': [{'id': 7, 'name': 'box'}]})
        )
    return root


def edit(path, change):
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


DAMAGES = {
    'no such folder': (lambda root: root.rename(root.with_name('elsewhere')), 'is not a folder'),
    'no annotations': (lambda root: (root / 'annotations/instances_val.json').unlink(), 'instances_val'),
    'not JSON': (lambda root: (root / 'annotations/instances_train.json').write_text('{"images": ['), 'is not JSON'),
    'binary': (lambda root: (root / 'annotations/instances_train.json').write_bytes(b'\xff\xfe\x00'), 'is not JSON'),
    'a list': (lambda root: (root / 'annotations/instances_train.json').write_text('[]'), 'COCO format'),
    'no categories': (
        lambda root: edit(root / 'annotations/instances_val.json', lambda c: c.pop('categories')),
        "'categories'",
    ),
    'annotation without mask': (
        lambda root: edit(root / 'annotations/instances_val.json', lambda c: c['annotations'][2].pop('segmentation')),
        r'annotations\[2\].*segmentation',
    ),
    'unknown image id': (
        lambda root: edit(root / 'annotations/instances_val.json', lambda c: c['annotations'][1].update(image_id=99)),
        'image_id 99',
    ),
    'unknown category': (
        lambda root: edit(
            root / 'annotations/instances_train.json', lambda c: c['annotations'][1].update(category_id=1)
        ),
        'category_id 1',
    ),
    'image listed twice': (
        lambda root: edit(
            root / 'annotations/instances_train.json', lambda c: c['images'][3].update(file_name='./1.jpg')
        ),
        r"instances_train.json: images\[3\] .*'./1.jpg' of another: list each image once",
    ),
    'two images of one id': (
        lambda root: edit(root / 'annotations/instances_val.json', lambda c: c['images'][3].update(id=1)),
        r'images\[3\] .*same id',
    ),
    'two objects of one id': (
        lambda root: edit(root / 'annotations/instances_val.json', lambda c: c['annotations'][3].update(id=1)),
        r'annotations\[3\] .*same id',
    ),
    'absent image': (lambda root: (root / 'val/3.jpg').unlink(), '3.jpg'),
    'truncated image': (
        lambda root: (root / 'train/2.jpg').write_bytes((root / 'train/2.jpg').read_bytes()[:1500]),
        '2.jpg is cut short',
    ),
    'not an image': (lambda root: (root / 'train/2.jpg').write_text('hello'), '2.jpg is not a readable image'),
    'wrong size': (
        lambda root: edit(root / 'annotations/instances_train.json', lambda c: c['images'][0].update(width=63)),
        '0.jpg is 64x48.*63x48',
    ),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_broken_coco_folder_is_one_line_and_leaves_nothing(capsys, tmp_path, damage):
    change, named = DAMAGES[damage]
    change(make_coco(tmp_path / 'data'))
    status, error = run(
        capsys,
        'detect',
        '--data-root',
        tmp_path / 'data',
        '--work-dir',
        tmp_path / 'work',
        '--results',
        tmp_path / 'results',
    )
    assert status == 2
    assert error.count('\n') == 1 and error.startswith('spark-bench: error: ')
    assert re.search(named, error), error
    assert not (tmp_path / 'results').exists() and not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    'arguments, named',
    [
        (['pretrain', '--arch', 'resnet5O'], 'resnet50'),
        (['pretrain', '--arch', 'vit_tiny_patch16_224'], 'vit_tiny_patch16_224|VisionTransformer'),
        (['pretrain', '--ablation', 'no_spars'], 'no_sparse'),
        (['pretrain', '--ablation', 'scratch'], 'scratch'),
        (['pretrain', 'nowhere.py'], 'nowhere.py'),
        (['pretrain', '--cfg-options', 'train_cfg.x.y=3'], 'train_cfg.x.y'),
        (['pretrain', '--seed', '-1'], '--seed'),
        (['pretrain', '--suite', '../up'], 'suite'),
        (['finetune', '--arch', 'nothing_like_it'], 'nothing_like_it'),
        (['detect', '--weights', 'nowhere.safetensors'], 'nowhere.safetensors'),
        (['table', '--suite', 'nothing'], 'nothing'),
        (['report', '--suite', 'nothing'], 'nothing'),
        (['jump'], 'jump'),
        ([], 'COMMAND'),
    ],
)
def test_bad_usage_is_one_line_and_status_2(capsys, tmp_path, arguments, named):
    places = ['--work-dir', str(tmp_path / 'work'), '--results', str(tmp_path / 'results')]
    data = {'pretrain': tmp_path / 'images', 'finetune': tmp_path / 'classes', 'detect': tmp_path / 'coco'}
    make_coco(tmp_path / 'coco')
    for folder in ('images', 'classes/train/a', 'classes/train/b', 'classes/val/a', 'classes/val/b'):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(32):
            Image.new('RGB', (40, 40)).save(tmp_path / folder / f'{i}.png')
    if arguments and arguments[0] in data:
        places += ['--data-root', str(data[arguments[0]])]
    status, error = run(capsys, *arguments, *(places if arguments and arguments[0] != 'jump' else []))
    assert status == 2
    assert error.count('\n') == 1, error
    assert re.search(named, error), error
    assert not (tmp_path / 'results').exists()


def test_a_truncated_image_stops_pretraining_by_name(capsys, tmp_path):
    (tmp_path / 'images').mkdir()
    for i in range(16):
        Image.effect_noise((64, 64), 80).convert('RGB').save(tmp_path / 'images' / f'{i}.jpg')
    bad = tmp_path / 'images' / '3.jpg'
    bad.write_bytes(bad.read_bytes()[:900])
    status, error = run(
        capsys,
        'pretrain',
        '--data-root',
        tmp_path / 'images',
        '--work-dir',
        tmp_path / 'work',
        '--results',
        tmp_path / 'results',
    )
    assert status == 2
    assert error.strip().splitlines()[-1].startswith(f'spark-bench: error: image {bad} is cut short')
    assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize('command', ['pretrain', 'detect', 'finetune'])
def test_an_absent_data_root_is_named(capsys, tmp_path, command):
    status, error = run(capsys, command, '--data-root', tmp_path / 'none', '--results', tmp_path / 'r')
    assert status == 2 and str(tmp_path / 'none') in error and '--data-root' in error


def test_an_unwritable_cache_is_named_with_its_remedy(capsys, tmp_path):
    (tmp_path / 'file').write_text('')
    status, error = run(capsys, 'data', 'embedded', '--size', 'quick', '--cache-dir', tmp_path / 'file' / 'cache')
    assert status == 2 and error.count('\n') == 1 and '--cache-dir' in error


def python(program, *words):
    return subprocess.run(
        [sys.executable, '-c', program, *words],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.getcwd()},
    )


def test_help_names_every_command_without_loading_torch():
    done = python(
        'import sys\nfrom spark_bench.__main__ import main\ntry: main()\n'
        'except SystemExit as stop: status = stop.code\n'
        'assert status == 0 and not {"torch", "mmengine", "matplotlib"} & set(sys.modules)',
        '--help',
    )
    assert done.returncode == 0, done.stderr
    for command in ('demo', 'pretrain', 'finetune', 'detect', 'table', 'report', 'doctor', 'data'):
        assert command in done.stdout


def test_a_ctrl_c_while_the_program_loads_ends_it_without_a_traceback():
    done = python(
        'import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'class Interrupt:\n    def find_spec(name, *rest):\n'
        '        if name == "spark_bench.commands": os.kill(os.getpid(), signal.SIGINT)\n'
        'sys.meta_path.insert(0, Interrupt)\nfrom spark_bench.__main__ import main\nmain()',
        '--help',
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, '', '')
