"""SparK, ConvNeXt-L, 3x: the recipe of ConvNeXt-B, for none is published. The drop path rate is our choice."""

_base_ = '../_base_/spark_convnext.py'

model = dict(backbone=dict(arch='convnext_large', drop_path_rate=0.6), neck=dict(in_channels=[192, 384, 768, 1536]))
expected = None
