"""Recipes at a size for tests, and how tests start them."""

import json
import shutil
from pathlib import Path

import numpy as np
from mmengine.config import ConfigDict
from PIL import Image

from spark_bench.configs import read_config

ROOT = Path(__file__).resolve().parents[2]
# Of every kind that a folder of images may hold: mode, suffix, format.
KINDS = [
    ('RGB', '.JPG', 'JPEG'),
    ('L', '.jpg', 'JPEG'),
    ('CMYK', '.Jpeg', 'JPEG'),
    ('I;16', '.PNG', 'PNG'),
    ('P', '.png', 'PNG'),
    ('RGBA', '.png', 'PNG'),
    ('1', '.png', 'PNG'),
    ('LA', '.PNG', 'PNG'),
]
# Ids with gaps, out of order.
CATEGORIES = [{'id': 900, 'name': 'box'}, {'id': 3, 'name': 'never seen'}, {'id': 57, 'name': 'other box'}]


def shrink(node, factor):
    """The same recipe on images ``factor`` times smaller."""
    if isinstance(node, dict):
        for key in ('scale', 'scales', 'crop_size', 'size'):
            if key in node:
                node[key] = divide(node[key], factor)
        for value in node.values():
            shrink(value, factor)
    elif isinstance(node, (list, tuple)):
        for value in node:
            shrink(value, factor)


def divide(value, factor):
    if isinstance(value, int):
        return max(32, value // factor // 32 * 32)
    return type(value)(divide(part, factor) for part in value)


def small(recipe, folder, factor=8, **settings):
    """Write a copy of a recipe for tiny images and two updates; return its path."""
    cfg = read_config(ROOT / 'mmdet_configs' / recipe)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        shrink(loader.dataset.pipeline, factor)
    for entry in cfg.model.data_preprocessor.get('batch_augments') or []:
        entry.size = divide(tuple(entry.size), factor)
    if cfg.model.backbone.type == 'SparKViT':
        cfg.model.backbone.input_size = 1024 // factor
    cfg.train_dataloader.dataset.filter_cfg.min_size = 1
    if 'roi_head' in cfg.model:
        # Of anchors that lie within the image, as a cascade takes them, so small ones may have none.
        cfg.model.train_cfg.rpn.allowed_border = -1
        cfg.model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
        stages = cfg.model.train_cfg.rcnn
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 32
        cfg.model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    cfg.global_batch = 2
    cfg.train_cfg = ConfigDict(type='UpdateLoop', max_updates=2)
    for scheduler in cfg.param_scheduler:
        scheduler.by_epoch = False
    for hook in cfg.get('custom_hooks', []):
        if hook.type == 'PreciseBatchNormHook':
            hook.updates = 2
    cfg.merge_from_dict(settings)
    path = Path(folder) / 'recipe.py'
    cfg.dump(path)
    return path


def words(config, data, folder, *extra):
    return [
        'detect',
        str(config),
        '--data-root',
        str(data),
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--threads',
        '1',
        '--workers',
        '0',
        '--weights',
        'scratch',
        *extra,
    ]


def tiny(folder, **settings):
    """SparK's ResNet recipe around a small network, for what does not depend on the network."""
    return small(
        'spark/mask-rcnn_resnet50_fpn_1x_coco.py',
        folder,
        factor=10,
        **{
            'model.backbone.arch': 'resnet18',
            'model.neck.in_channels': [64, 128, 256, 512],
            'model.neck.out_channels': 32,
            'model.rpn_head.in_channels': 32,
            'model.rpn_head.feat_channels': 32,
            'model.roi_head.bbox_roi_extractor.out_channels': 32,
            'model.roi_head.mask_roi_extractor.out_channels': 32,
            'model.roi_head.bbox_head.in_channels': 32,
            'model.roi_head.bbox_head.conv_out_channels': 32,
            'model.roi_head.bbox_head.fc_out_channels': 64,
            'model.roi_head.mask_head.in_channels': 32,
            'model.roi_head.mask_head.conv_out_channels': 32,
            **settings,
        },
    )


def write_boxes(root, rounds=1):
    """Write eight images of one square each, in eight modes; the last two of the training set have no object.

    Args:
        rounds: how often, with other noise each time.
    """
    (root / 'annotations').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        (root / split).mkdir()
        images, annotations = [], []
        for i, (mode, suffix, kind) in enumerate(KINDS * rounds):
            pixels = rng.integers(0, 90, (48, 64), dtype=np.uint8)
            pixels[10:40, 10:40] = 250
            image = (
                Image.fromarray(pixels.astype(np.uint16) * 257)
                if mode == 'I;16'
                else Image.fromarray(pixels).convert(mode)
            )
            image.save(root / split / f'{i}{suffix}', kind)
            images.append({'id': 1000 - i, 'file_name': f'{i}{suffix}', 'width': 64, 'height': 48})
            if split == 'val' or i % 8 < 6:
                annotations.append(
                    {
                        'id': 50 + 7 * i,
                        'image_id': 1000 - i,
                        'category_id': (900, 57)[i % 2],
                        'bbox': [10, 10, 30, 30],
                        'area': 900,
                        'iscrowd': 0,
                        'segmentation': [[10, 10, 40, 10, 40, 40, 10, 40]],
                    }
                )
        (root / f'annotations/instances_{split}.json').write_text(
            json.dumps({'images': images, 'annotations': annotations, 'categories': CATEGORIES})
        )
    return root


def record_of(folder):
    [path] = (folder / 'results').rglob('*.json')
    return json.loads(path.read_text())


def leave_boxes_alone(root, target):
    """A copy of a COCO folder whose annotations have no masks, as ``[]`` or not at all."""
    shutil.copytree(root, target)
    for path in (target / 'annotations').glob('*.json'):
        contents = json.loads(path.read_text())
        for number, entry in enumerate(contents['annotations']):
            del entry['segmentation']
            entry |= {} if number % 2 else {'segmentation': []}
        path.write_text(json.dumps(contents))
    return target
