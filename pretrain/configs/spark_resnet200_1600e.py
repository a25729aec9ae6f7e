"""SparK, ResNet-200, 1600 epochs at a global batch of 4096. Cost: not reported by the authors."""

_base_ = '_base_/spark_1600e.py'

batch_limit = 64
model = dict(arch='resnet200', drop_path_rate=0.15)
