"""Mask R-CNN with Swin. Source: Swin-Transformer-Object-Detection, by way of mmdet `configs/swin`."""

_base_ = 'augmentation_detr.py'

model = dict(
    backbone=dict(_delete_=True, type='SparKSwin', arch='swin_tiny', drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    constructor='SparKLayerDecay',
    # One learning rate for all layers; no weight decay on norms and position tables.
    paramwise_cfg=dict(decay_rate=1.0, no_decay=['norm', 'relative_position_bias_table', 'absolute_pos_embed']),
)
method = init = 'supervised'
