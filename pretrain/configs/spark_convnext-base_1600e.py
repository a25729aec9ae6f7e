"""SparK, ConvNeXt-B, 1600 epochs at a global batch of 4096. Cost reported by the authors:
about 4,000 GPU-hours.
"""

_base_ = '_base_/convnext.py'

batch_limit = 64
model = dict(arch='convnext_base', drop_path_rate=0.3)
