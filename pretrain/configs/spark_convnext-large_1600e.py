"""SparK, ConvNeXt-L, 1600 epochs at a global batch of 4096. Cost: not reported by the authors."""

_base_ = '_base_/convnext.py'

batch_limit = 32
model = dict(arch='convnext_large', drop_path_rate=0.4)
