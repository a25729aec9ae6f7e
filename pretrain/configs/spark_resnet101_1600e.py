"""SparK, ResNet-101, 1600 epochs at a global batch of 4096. Cost: not reported by the authors."""

_base_ = '_base_/spark_1600e.py'

batch_limit = 128
model = dict(arch='resnet101', drop_path_rate=0.08)
