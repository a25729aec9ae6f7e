"""mmdet's own tools train and evaluate mmdet's own detectors on our backbone, whoever has compiled the operators."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
from mmdet.datasets import CocoDataset
from small_recipes import ROOT, shrink, write_boxes
from stock_recipes import CHANNELS
from stock_recipes import DETECTORS as OTHERS

from spark_bench.configs import read_config

TOOLS = Path(mmdet.__file__).parent / '.mim/tools'
DETECTORS = {'mask-rcnn': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', **OTHERS}


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """Images of squares, filed under COCO's 80 categories and names."""
    root = write_boxes(tmp_path_factory.mktemp('coco'))
    names = CocoDataset.METAINFO['classes']
    for path in (root / 'annotations').iterdir():
        contents = json.loads(path.read_text())
        contents['categories'] = [{'id': number, 'name': name} for number, name in enumerate(names, start=1)]
        for annotation in contents['annotations']:
            annotation['category_id'] = 1 + annotation['id'] % 2
        path.write_text(json.dumps(contents))
    return root


def with_our_backbone(name, coco, folder):
    """A stock config for images eight times smaller, two updates, then one evaluation; return its path."""
    cfg = read_config(TOOLS.parent / 'configs' / DETECTORS[name])
    cfg.custom_imports = dict(imports=['spark_bench'], allow_failed_imports=False)
    stages = cfg.model.backbone.out_indices
    cfg.model.backbone = dict(type='SparKResNet', arch='resnet18', out_indices=stages, style='pytorch')
    (cfg.model.panoptic_head if name == 'mask2former' else cfg.model.neck).in_channels = [CHANNELS[i] for i in stages]
    for augment in cfg.model.data_preprocessor.get('batch_augments') or []:
        augment.size = (128, 128)
    for split, loader in (('train', cfg.train_dataloader), ('val', cfg.val_dataloader), ('val', cfg.test_dataloader)):
        shrink(loader.dataset.pipeline, 8)
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root='',
            data_prefix=dict(img=f'{coco}/{split}/'),
            ann_file=str(coco / f'annotations/instances_{split}.json'),
        )
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(coco / 'annotations/instances_val.json')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    if name == 'dino':  # whose first queries are places of the maps, and those of so small an image are few
        cfg.model.num_queries = cfg.model.test_cfg.max_per_img = 20
    # mmdet gives no metrics at all where nothing is detected.
    for tested in (cfg.model.test_cfg, cfg.model.test_cfg.get('rcnn', {})):
        if 'score_thr' in tested:
            tested.score_thr = 0.0
    cfg.log_processor.by_epoch = cfg.default_hooks.checkpoint.by_epoch = False
    cfg.default_hooks.logger.interval = 1
    cfg.auto_scale_lr = None
    path = folder / f'{name}.py'
    cfg.dump(path)
    return path


def tool(*words):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
def test_stock_detectors_train_and_evaluate(name, coco, tmp_path):
    config = with_our_backbone(name, coco, tmp_path)
    work_dir = tmp_path / 'work'
    tool(TOOLS / 'train.py', config, '--work-dir', work_dir)
    [log] = work_dir.glob('*/vis_data/scalars.json')
    told = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [line['loss'] for line in told if 'loss' in line]
    assert len(losses) == 2 and all(0 < loss < 1e4 for loss in losses)
    [metrics] = [line for line in told if 'coco/bbox_mAP' in line]
    assert ('coco/segm_mAP' in metrics) == ('mask' in name)
    if name == 'retinanet':
        # This tool imports most of mmdet before it reads the config that names us.
        tested = tool(
            '-m',
            'spark_bench.operators',
            TOOLS / 'test.py',
            config,
            work_dir / 'iter_2.pth',
            '--work-dir',
            tmp_path / 'tested',
        )
        assert f'coco/bbox_mAP: {metrics["coco/bbox_mAP"]:.4f}' in tested
