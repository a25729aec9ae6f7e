"""mmdet's own Mask R-CNN with ResNet-101, 2x."""

_base_ = '../_base_/supervised_resnet.py'

model = dict(backbone=dict(arch='resnet101'))
train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=24, milestones=[16, 22], gamma=0.1),
]
expected = dict(box_ap=40.8, mask_ap=36.6, tolerance=0.3, source='open-mmlab/mmdetection configs/mask_rcnn/README.md')
