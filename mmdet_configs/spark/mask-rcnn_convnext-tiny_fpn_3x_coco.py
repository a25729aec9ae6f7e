"""SparK, ConvNeXt-T, 3x, with the recipe of facebookresearch/ConvNeXt for this size. No figure is published."""

_base_ = '../_base_/spark_convnext.py'

model = dict(backbone=dict(arch='convnext_tiny', drop_path_rate=0.4), neck=dict(in_channels=[96, 192, 384, 768]))
base_lr = 1e-4
# 6 layers follow from the depth of the network. 16-bit, as in its recipe.
optim_wrapper = dict(autocast=True, paramwise_cfg=dict(decay_rate=0.95))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
expected = None
