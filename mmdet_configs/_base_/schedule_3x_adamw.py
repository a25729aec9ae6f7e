"""36 epochs of AdamW with steps at 27 and 33. Source: Swin-Transformer-Object-Detection; ConvNeXt's is the same.

The optimizer's values are Swin's; its warm-up of 1,000 updates is the one of mmdet's `configs/swin`.
"""

_base_ = 'mask-rcnn_coco.py'

base_lr = 1e-4
train_cfg = dict(type='UpdateLoop', max_epochs=36)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=None, betas=(0.9, 0.999), weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
