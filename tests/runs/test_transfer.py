"""Pretraining, then transfer, through the command line: on made images, and on real ones where there are any."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageDraw

from spark_bench import checkpoints, commands
from spark_bench.models.backbones import SparKTimm
from spark_bench.places import shipped
from spark_bench.records import load_all
from spark_bench.runs.inputs import load_config
from spark_bench.runs.overrides import set_length

REAL_DATA = Path(os.environ.get('SPARK_BENCH_TEST_DATA', Path(__file__).parents[3] / 'shared' / 'data'))


def real_data(name):
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent: set SPARK_BENCH_TEST_DATA to a folder with {name}/')
    return folder


def command(folder, *arguments):
    status = commands.main(
        [*map(str, arguments), '--results', str(folder / 'results'), '--suite', 'test', '--threads', '1']
    )
    assert status == 0
    return load_all(folder / 'results', 'test')


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """A folder in COCO layout with one white box an image."""
    root = tmp_path_factory.mktemp('coco')
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir()
    for split in ('train', 'val'):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(16):
            image = Image.fromarray(rng.integers(0, 150, (96, 128, 3), dtype=np.uint8))
            x, y, w, h = (int(v) for v in (*rng.integers(4, 40, 2), *rng.integers(20, 50, 2)))
            ImageDraw.Draw(image).rectangle([x, y, x + w - 1, y + h - 1], fill='white')
            image.save(root / split / f'{i}.png')
            images.append({'id': i, 'file_name': f'{i}.png', 'width': 128, 'height': 96})
            annotations.append(
                {
                    'id': i + 1,
                    'image_id': i,
                    'category_id': 3,
                    'bbox': [x, y, w, h],
                    'area': w * h,
                    'iscrowd': 0,
                    'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        (root / 'annotations' / f'instances_{split}.json').write_text(
            json.dumps({'images': images, 'annotations': annotations, 'categories': [{'id': 3, 'name': 'box'}]})
        )
    return root


@pytest.fixture(scope='module')
def pretrained(coco, tmp_path_factory):
    """(folder, encoder file) of a ConvNeXt pretrained for two steps."""
    folder = tmp_path_factory.mktemp('run')
    records = command(
        folder, 'pretrain', '--data-root', coco / 'train', '--arch', 'test_convnext', '--work-dir', folder / 'pretrain'
    )
    assert [(r.task, r.arch, r.method) for r in records] == [('pretrain', 'test_convnext', 'spark')]
    return folder, folder / 'pretrain' / 'encoder.safetensors'


def test_a_pretrained_convnext_is_transferred_to_detection(coco, pretrained):
    folder, encoder = pretrained
    records = command(
        folder,
        'detect',
        '--data-root',
        coco,
        '--arch',
        'test_convnext',
        '--weights',
        encoder,
        '--work-dir',
        folder / 'detect',
    )
    record = next(r for r in records if r.task == 'detection')
    assert record.method == 'spark' and record.arch == 'test_convnext'
    assert record.weights['config_hash'] == checkpoints.read_metadata(encoder)['config_hash']
    assert record.dataset['train_images'] == 16 and 0 <= record.metrics['box_ap'] <= 100
    assert not list((folder / 'detect').glob('epoch_*.pth')), 'checkpoints to resume from are gone with the record'


def test_the_backbone_gives_timms_features_for_the_pretrained_weights(pretrained):
    _, encoder = pretrained
    backbone = SparKTimm('test_convnext', weights=str(encoder))
    backbone.init_weights()
    network = timm.create_model('test_convnext', num_classes=0)
    missing = network.load_state_dict(checkpoints.read_tensors(encoder), strict=False)
    assert not missing.unexpected_keys and all('head' in name for name in missing.missing_keys)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network.eval().forward_intermediates(image, intermediates_only=True)
    for ours, theirs in zip(backbone.eval()(image), expected, strict=True):
        normed = torch.nn.functional.layer_norm(theirs.permute(0, 2, 3, 1), theirs.shape[1:2], eps=1e-6)
        assert torch.allclose(ours, normed.permute(0, 3, 1, 2), atol=1e-5)


def test_weights_of_another_architecture_are_refused(coco, pretrained, capsys):
    folder, encoder = pretrained
    status = commands.main(
        [
            'detect',
            '--data-root',
            str(coco),
            '--weights',
            str(encoder),
            '--work-dir',
            str(folder / 'other'),
            '--results',
            str(folder / 'results'),
            '--suite',
            'other',
        ]
    )
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2 and 'encoder.safetensors does not fit ResNet' in error and 'missing from the file' in error


def test_a_record_of_another_configuration_is_never_overwritten(coco, pretrained, capsys):
    folder, _ = pretrained
    before = {path: path.read_bytes() for path in (folder / 'results').rglob('*.json')}
    status = commands.main(
        [
            'pretrain',
            '--data-root',
            str(coco / 'train'),
            '--arch',
            'test_convnext',
            '--results',
            str(folder / 'results'),
            '--suite',
            'test',
            '--work-dir',
            str(folder / 'again'),
            '--cfg-options',
            'optim_wrapper.optimizer.lr=0.001',
        ]
    )
    assert status == 2 and 'another configuration' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (folder / 'results').rglob('*.json')} == before


@pytest.mark.parametrize('epochs', [1, 2, 7])
def test_schedules_end_with_the_training_whatever_its_length(epochs):
    cfg = load_config(str(shipped('pretrain/configs/demo_pretrain.py')), {})
    set_length(cfg, epochs)
    assert cfg.train_cfg.max_epochs == max(s.end for s in cfg.param_scheduler) == epochs
    cfg = load_config(str(shipped('mmdet_configs/demo/mask-rcnn_demo.py')), {})
    set_length(cfg, epochs)
    [cosine] = [s for s in cfg.param_scheduler if s.type == 'CosineAnnealingLR']
    assert cfg.train_cfg.max_epochs == cosine.end == cosine.T_max == epochs and cosine.begin == 0


def test_real_coco_images_train_evaluate_and_leave_a_record(tmp_path):
    records = command(tmp_path, 'detect', '--data-root', real_data('coco_tiny'), '--work-dir', tmp_path / 'work')
    [record] = records
    assert (record.task, record.dataset['train_images'], record.dataset['val_images']) == ('detection', 80, 80)
    losses = [value for _, value in record.curves['loss']]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert record.metrics['box_ap'] is not None and Path(record.artifacts['predictions']).is_file()


@pytest.mark.slow
def test_pretraining_loss_falls_on_real_microscopy_images(tmp_path):
    [record] = command(
        tmp_path,
        'pretrain',
        '--data-root',
        real_data('nuclei'),
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        'train_cfg.max_epochs=3',
        'model.input_size=96',
        'train_dataloader.dataset.input_size=96',
    )
    losses = [value for _, value in record.curves['loss']]
    assert record.dataset['train_images'] == 531, 'those of its training annotations, never those of validation'
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])
