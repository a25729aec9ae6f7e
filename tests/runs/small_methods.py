"""Small pretrainings by each method, and the same models as mmpretrain has them."""

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmpretrain.structures import DataSample
from PIL import Image
from small_recipes import ROOT

from spark_bench.configs import read_config

METHODS = ('mae', 'simmim', 'moco_v2', 'byol', 'supervised')
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
EPOCHS, IMAGES, BATCH, SEED = 5, 20, 4, 7
UPDATES = EPOCHS * IMAGES // BATCH


def write_images(root):
    """Ten images of each of two classes for training, one of each for evaluation."""
    draw = np.random.default_rng(0)
    for split, count in (('train', IMAGES // 2), ('val', 1)):
        for name in ('fine', 'coarse'):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                side = 12 if name == 'fine' else 3
                colours = draw.integers(0, 255, (side, side, 3), dtype=np.uint8)
                Image.fromarray(colours).resize((110, 100)).save(root / split / name / f'{number}.png')
    return root


def schedule():
    return [ConfigDict(type='CosineAnnealingLR', T_max=UPDATES, by_epoch=False)]


def small_recipe(method, folder, **settings):
    """A copy of a method's small recipe for a batch of four, with a schedule that mmengine has; its path."""
    cfg = read_config(ROOT / f'pretrain/configs/small_{method}.py')
    cfg.global_batch, cfg.param_scheduler, cfg.train_cfg.max_epochs = BATCH, schedule(), EPOCHS
    if method == 'moco_v2':
        cfg.model.queue_len = 32
    cfg.merge_from_dict(settings)
    path = folder / f'{method}.py'
    cfg.dump(path)
    return path


def words(config, images, folder, *extra):
    return [
        'pretrain',
        str(config),
        '--data-root',
        str(images),
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--threads',
        '1',
        '--workers',
        '0',
        '--seed',
        str(SEED),
        *extra,
    ]


_MLP = dict(
    type='NonLinearNeck',
    hid_channels=256,
    out_channels=64,
    num_layers=2,
    with_bias=True,
    with_last_bn=False,
    norm_cfg=dict(type='BN1d'),
)
_RESNET = dict(type='TIMMBackbone', model_name='test_resnet')
# The small recipes' models, written down again in mmpretrain's words.
STOCK = {
    'mae': dict(
        type='MAE',
        backbone=dict(
            type='MAEViT',
            img_size=96,
            patch_size=16,
            mask_ratio=0.75,
            arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        ),
        neck=dict(
            type='MAEPretrainDecoder',
            num_patches=36,
            patch_size=16,
            embed_dim=128,
            decoder_embed_dim=96,
            decoder_depth=2,
            decoder_num_heads=4,
        ),
        head=dict(
            type='MAEPretrainHead',
            norm_pix=True,
            patch_size=16,
            loss=dict(type='PixelReconstructionLoss', criterion='L2'),
        ),
    ),
    'simmim': dict(
        type='SimMIM',
        backbone=dict(
            type='SimMIMSwinTransformer',
            img_size=96,
            drop_path_rate=0.0,
            stage_cfgs=dict(block_cfgs=dict(window_size=3)),
            arch=dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]),
        ),
        neck=dict(type='SimMIMLinearDecoder', in_channels=256, encoder_stride=32),
        head=dict(
            type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3)
        ),
    ),
    'moco_v2': dict(
        type='MoCo',
        queue_len=32,
        feat_dim=64,
        momentum=0.01,
        backbone=_RESNET,
        neck=dict(type='MoCoV2Neck', in_channels=96, hid_channels=96, out_channels=64),
        head=dict(type='ContrastiveHead', temperature=0.2, loss=dict(type='CrossEntropyLoss')),
    ),
    'byol': dict(
        type='BYOL',
        base_momentum=0.01,
        backbone=_RESNET,
        neck=dict(in_channels=96, **_MLP),
        head=dict(
            type='LatentPredictHead',
            loss=dict(type='CosineSimilarityLoss'),
            predictor=dict(in_channels=64, with_avg_pool=False, **_MLP),
        ),
    ),
    'supervised': dict(
        type='ImageClassifier',
        backbone=_RESNET,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=2,
            in_channels=96,
            loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        ),
    ),
}
# Their optimizers, in mmengine's words.
_SPARED = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
# torch's AdamW by its fused kernel, as runs of ours take it.
OPTIMIZERS = {
    'mae': dict(
        optimizer=dict(type='AdamW', fused=True, lr=2e-3 * BATCH / 256, betas=(0.9, 0.95), weight_decay=0.05),
        paramwise_cfg=_SPARED,
    ),
    'simmim': dict(
        optimizer=dict(type='AdamW', fused=True, lr=2e-3 * BATCH / 256, betas=(0.9, 0.999), weight_decay=0.05),
        clip_grad=dict(max_norm=5.0),
        paramwise_cfg=dict(
            **_SPARED,
            custom_keys={'mask_token': dict(decay_mult=0.0), 'relative_position_bias_table': dict(decay_mult=0.0)},
        ),
    ),
    'moco_v2': dict(optimizer=dict(type='SGD', lr=0.12 * BATCH / 256, momentum=0.9, weight_decay=1e-4)),
    'byol': dict(
        optimizer=dict(type='AdamW', fused=True, lr=2e-3 * BATCH / 256, betas=(0.9, 0.95), weight_decay=0.05),
        paramwise_cfg=_SPARED,
    ),
    'supervised': dict(
        optimizer=dict(type='AdamW', fused=True, lr=4e-3 * BATCH / 256, betas=(0.9, 0.95), weight_decay=0.05),
        paramwise_cfg=_SPARED,
    ),
}


def collate(items):
    """Items of our data sets as mmpretrain's loaders give them."""
    views = items[0]['inputs']
    inputs = (
        torch.stack([item['inputs'] for item in items])
        if torch.is_tensor(views)
        else [torch.stack([item['inputs'][number] for item in items]) for number in range(len(views))]
    )
    samples = [DataSample(mask=item['mask']) if 'mask' in item else DataSample() for item in items]
    for sample, item in zip(samples, items, strict=True):
        if 'label' in item:
            sample.set_gt_label(item['label'])
    return {'inputs': inputs, 'data_samples': samples}
