"""SparK, ConvNeXt-S, 3x: the recipe of ConvNeXt-B, for none is published. The drop path rate is our choice."""

_base_ = '../_base_/spark_convnext.py'

model = dict(backbone=dict(arch='convnext_small', drop_path_rate=0.4), neck=dict(in_channels=[96, 192, 384, 768]))
expected = None
