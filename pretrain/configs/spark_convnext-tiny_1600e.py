"""SparK, ConvNeXt-T, 1600 epochs at a global batch of 4096.

No figure or recipe is published for this size: the drop path is ours, that of supervised ConvNeXt-T.
"""

_base_ = '_base_/convnext.py'

batch_limit = 128
model = dict(arch='convnext_tiny', drop_path_rate=0.1)
