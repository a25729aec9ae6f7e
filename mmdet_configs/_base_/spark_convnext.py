"""SparK's recipe for ConvNeXt-B, which is ConvNeXt's with other learning rates.

Source of every value, unless a line says otherwise: SparK's released detection code on ConvNeXt's recipe.
"""

_base_ = 'augmentation_detr.py'

model = dict(
    backbone=dict(
        _delete_=True, type='SparKConvNeXt', arch='convnext_base', drop_path_rate=0.5, layer_scale_init_value=1.0
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
base_lr = 2e-4
optim_wrapper = dict(constructor='SparKLayerDecay', paramwise_cfg=dict(decay_rate=0.65, no_decay=['1d']))
param_scheduler = [
    # Warm-up of 500 updates: ConvNeXt's, from mmdet's `schedule_1x`.
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.2),
]
method = init = 'spark'
