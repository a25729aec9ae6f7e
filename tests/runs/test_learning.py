"""A detector learns: it can overfit a handful of real images, and segments real ones that it has not seen."""

import json
import os
from pathlib import Path

import pytest

from spark_bench import commands
from spark_bench.configs import read_config

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get('SPARK_BENCH_TEST_DATA', ROOT.parent / 'shared' / 'data'))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(6000)]


def data_set(name):
    if not (DATA / name).is_dir():
        pytest.skip(f'{name} is not here: it is development data, not part of this repository')
    return DATA / name


def learner(folder, side, epochs, batch_size, anchors, lr=1e-3, flip=0.5):
    """The demo's detector with a ResNet-18, masks of 28×28 and more RoIs; return the path of the config."""
    cfg = read_config(ROOT / 'mmdet_configs/demo/mask-rcnn_demo.py')
    cfg.model.rpn_head.anchor_generator.scales = anchors
    heads = cfg.model.roi_head
    heads.mask_roi_extractor.roi_layer.output_size = 14
    heads.bbox_head.fc_out_channels = 256
    cfg.model.train_cfg.rcnn.mask_size = 28
    cfg.model.train_cfg.rpn.sampler.num = 128
    cfg.model.train_cfg.rpn_proposal.update(nms_pre=500, max_per_img=200)
    cfg.model.train_cfg.rcnn.sampler.num = 128
    cfg.model.test_cfg.rpn.update(nms_pre=500, max_per_img=200)
    cfg.model.test_cfg.rcnn.max_per_img = 100
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (side, side)
            elif step.type == 'RandomFlip':
                step.prob = flip
    cfg.global_batch = batch_size
    cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval = epochs, epochs + 1
    cfg.optim_wrapper.optimizer.lr = lr
    for scheduler in cfg.param_scheduler:
        if scheduler.by_epoch:
            scheduler.end = scheduler.T_max = epochs
    path = folder / 'learner.py'
    cfg.dump(path)
    return path


def train(config, data, folder):
    assert (
        commands.main(
            [
                'detect',
                str(config),
                '--data-root',
                str(data),
                '--arch',
                'resnet18',
                '--work-dir',
                str(folder / 'work'),
                '--results',
                str(folder / 'results'),
                '--threads',
                '2',
            ]
        )
        == 0
    )
    [path] = (folder / 'results').rglob('*.json')
    return json.loads(path.read_text())['metrics']


def test_twenty_images_of_coco_are_learnt_by_heart(tmp_path):
    source = data_set('coco_tiny')
    contents = json.loads((source / 'annotations/instances_train2017.json').read_text())
    contents['images'] = contents['images'][:20]
    kept = {image['id'] for image in contents['images']}
    contents['annotations'] = [entry for entry in contents['annotations'] if entry['image_id'] in kept]
    (tmp_path / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (tmp_path / f'annotations/instances_{split}.json').write_text(json.dumps(contents))
        (tmp_path / split).symlink_to(source / 'train2017')
    metrics = train(learner(tmp_path, 384, 240, 4, [2, 4, 8], lr=2e-3, flip=0.0), tmp_path, tmp_path)
    assert metrics['mask_ap'] >= 50, metrics


def test_nuclei_are_segmented_on_images_not_seen(tmp_path):
    metrics = train(learner(tmp_path, 256, 4, 4, [2, 4]), data_set('nuclei'), tmp_path)
    assert metrics['mask_ap'] >= 15, metrics
