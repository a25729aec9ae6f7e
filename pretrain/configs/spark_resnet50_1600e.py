"""SparK, ResNet-50, 1600 epochs at a global batch of 4096.

Cost reported by the authors: 48 hours on 32 A100 for 800 epochs, half of these.
"""

_base_ = '_base_/spark_1600e.py'

batch_limit = 128
model = dict(arch='resnet50', drop_path_rate=0.05)
