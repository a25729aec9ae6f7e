"""SparK, ConvNeXt-S, 1600 epochs at a global batch of 4096. Cost: not reported by the authors."""

_base_ = '_base_/convnext.py'

batch_limit = 128
model = dict(arch='convnext_small', drop_path_rate=0.2)
