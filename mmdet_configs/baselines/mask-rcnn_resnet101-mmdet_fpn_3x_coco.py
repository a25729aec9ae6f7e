"""mmdet's own Mask R-CNN with ResNet-101, 3x."""

_base_ = '../_base_/supervised_resnet.py'

model = dict(backbone=dict(arch='resnet101'))
# Short side from 640 to 800; steps at 27 and 33. Source: mmdet `configs/common/ms-poly_3x_coco-instance.py`.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
expected = dict(box_ap=42.7, mask_ap=38.5, tolerance=0.3, source='open-mmlab/mmdetection configs/mask_rcnn/README.md')
