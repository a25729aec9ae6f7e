"""Supervised Swin-T, 1x: plain augmentation, steps at 8 and 11. Source: mmdet `configs/swin`."""

_base_ = '../_base_/swin.py'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
expected = dict(box_ap=42.7, mask_ap=39.3, tolerance=0.3, source='open-mmlab/mmdetection configs/swin/README.md')
