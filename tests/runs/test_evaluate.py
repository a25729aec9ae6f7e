"""``spark-bench evaluate`` without --work-dir: a folder of its own for every config, file of weights and data set."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_finetuning import CLASSES
from small_recipes import ROOT

from pretrain.encoder import create_network
from spark_bench import commands, registration  # noqa: F401
from spark_bench.checkpoints import save
from spark_bench.errors import InputError
from spark_bench.models.backbones import pyramid_channels
from spark_bench.places import default_evaluation_dir
from spark_bench.runs import folders
from spark_bench.runs.recipe import Identity

ANOTHER = Identity('classification', {}, 'abc', 0, None)


def evaluate(capsys, *words):
    """The folder that an evaluation names, and the predictions in it."""
    assert commands.main(['evaluate', *map(str, words)]) == 0
    folder = re.search(r'^metrics: (.*)/metrics\.json$', capsys.readouterr().out, re.MULTILINE)[1]
    return folder, predictions_in(folder)


def predictions_in(folder):
    return b''.join(path.read_bytes() for path in sorted(Path(folder).glob('predictions*')))


def save_classifier(path, seed):
    torch.manual_seed(seed)
    save(create_network('test_resnet', num_classes=CLASSES), path, {'arch': 'test_resnet'})


def save_detector(path, seed, arch='test_resnet'):
    init_default_scope('mmdet')
    model = Config.fromfile(ROOT / 'mmdet_configs/demo/mask-rcnn_demo.py').model
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = 80
    model.backbone.arch, model.neck.in_channels = arch, pyramid_channels(arch)
    torch.manual_seed(seed)
    save(MODELS.build(model), path, {'arch': arch})


def check_folders(capsys, save_weights, config, name, words):
    """Two files of one name; then the first again, and with another value in the config."""
    found = []
    for parent in ('one', 'two'):
        (config.parent / parent).mkdir()
        save_weights(config.parent / parent / name, len(found))
        found.append(evaluate(capsys, config, '--weights', f'{parent}/{name}', *words))
    assert len({folder for folder, _ in found}) == len({predictions for _, predictions in found}) == 2
    shown = rf'work_dirs/evaluate/{config.stem}/{name.partition(".")[0]}-[0-9a-f]{{8}}'
    assert all(re.fullmatch(shown, folder) for folder, _ in found), found
    assert evaluate(capsys, config, '--weights', config.parent / 'one' / name, *words) == found[0]
    other, _ = evaluate(capsys, config, '--weights', f'one/{name}', *words, '--cfg-options', 'log_level=WARNING')
    assert other not in [folder for folder, _ in found]
    assert all(predictions_in(folder) == predictions for folder, predictions in found), 'something was overwritten'


def test_classifiers_of_one_name_are_evaluated_in_folders_of_their_own(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my.py').write_text(f"_base_ = '{ROOT}/pretrain/configs/demo_finetune.py'\n")
    check_folders(
        capsys,
        save_classifier,
        tmp_path / 'my.py',
        'classifier.safetensors',
        ['--protocol', 'finetune', '--data-root', images, '--workers', '0', '--threads', '1'],
    )


def test_detectors_of_one_name_are_evaluated_in_folders_of_their_own(coco, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my.py').write_text(
        f"_base_ = '{ROOT}/mmdet_configs/demo/mask-rcnn_demo.py'\n"
        'model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0)))\n'
    )
    check_folders(
        capsys,
        save_detector,
        tmp_path / 'my.py',
        'detector.safetensors',
        ['--data-root', coco, '--workers', '0', '--threads', '1'],
    )


def test_a_detector_is_of_the_architecture_that_its_file_states(coco, tmp_path, monkeypatch, capsys):
    """As a classifier is; the config names another one."""
    monkeypatch.chdir(tmp_path)
    save_detector(tmp_path / 'd.safetensors', 0, 'test_convnext')
    words = ['--weights', 'd.safetensors', '--data-root', coco, '--workers', '0', '--threads', '1']
    folder, _ = evaluate(capsys, *words)
    assert json.loads(Path(folder, 'metrics.json').read_text())['box_ap'] is not None


@pytest.mark.parametrize(
    'change',
    [
        dict(config='b/recipe.py'),
        dict(weights='b/detector.pth'),
        dict(data_root='b'),
        dict(arch='resnet18'),
        dict(overrides={'a': 2}),
    ],
)
def test_whatever_is_another_gives_another_folder(change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    what = dict(config='a/recipe.py', weights='a/detector.pth', data_root='a', arch=None, overrides={'a': (1, 2)})
    first, other = default_evaluation_dir(**what), default_evaluation_dir(**(what | change))
    assert first != other and first.parent == other.parent
    assert default_evaluation_dir(**(what | {'weights': tmp_path / 'a/detector.pth', 'data_root': './a/'})) == first


def contents_of(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file() and path.name != '.lock'}


def test_an_evaluation_keeps_out_of_every_folder_but_its_own(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, 'lock_folder', partial(folders.lock_folder, patience_s=0))
    (tmp_path / 'my.py').write_text(f"_base_ = '{ROOT}/pretrain/configs/demo_finetune.py'\n")
    for name in ('one', 'two'):
        save_classifier(tmp_path / f'{name}.safetensors', len(name))
    words = ['evaluate', 'my.py', '--protocol', 'finetune', '--data-root', str(images), '--workers', '0']

    def refused(folder, weights, named):
        before = contents_of(folder)
        assert commands.main([*words, '--weights', f'{weights}.safetensors', '--work-dir', str(folder)]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and named in error[0], error
        assert contents_of(folder) == before

    training = tmp_path / 'training'
    training.mkdir()
    (training / folders.STAMP).write_text(ANOTHER.text)
    (training / 'metrics.json').write_text('{}')
    refused(training, 'one', 'another configuration')
    foreign = tmp_path / 'foreign'
    foreign.mkdir()
    (foreign / 'metrics.json').write_text('mine')
    refused(foreign, 'one', 'foreign/metrics.json would be replaced')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/my.py').write_text('of the name of the recipe, and kept')
    again = [*words, '--weights', 'one.safetensors', '--work-dir', 'mine']
    assert commands.main(again) == 0
    assert commands.main(again) == 0
    assert (tmp_path / 'mine/my.py').read_text() == 'of the name of the recipe, and kept'
    refused(tmp_path / 'mine', 'two', 'another configuration')
    held = folders.lock_folder(tmp_path / 'mine')
    refused(tmp_path / 'mine', 'one', 'another process is running in')
    held.close()
    with pytest.raises(InputError, match='another configuration'):  # nor does a training take it
        folders.check_stamp(tmp_path / 'mine', ANOTHER)


def test_an_evaluation_of_before_there_were_stamps_is_repeated_where_it_was(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_classifier(tmp_path / 'one.safetensors', 1)
    words = ['--protocol', 'finetune', '--data-root', images, '--weights', 'one.safetensors', '--workers', '0']
    # A file that does not say what it is to see is not measured on images of some size.
    assert commands.main(['evaluate', *map(str, words)]) == 2
    assert 'one.safetensors does not say' in (told := capsys.readouterr().err) and 'give the CONFIG' in told
    words.insert(0, 'pretrain/configs/demo_finetune.py')
    folder, found = evaluate(capsys, *words)
    (Path(folder) / folders.STAMP).unlink()
    assert evaluate(capsys, *words) == (folder, found)


@pytest.mark.parametrize(
    'name',
    [
        'metrics.json',
        'detector.safetensors',
        'classifier_best.safetensors',
        'predictions_ema.npz',
        'encoder.safetensors',
        'config.py',
    ],
)
def test_a_training_replaces_nothing_that_no_run_left(tmp_path, name):
    (tmp_path / name).write_text('mine')
    with pytest.raises(InputError, match=name):
        folders.check_stamp(tmp_path, ANOTHER)
    (tmp_path / folders.STAMP).write_text(ANOTHER.text)
    folders.check_stamp(tmp_path, ANOTHER)
