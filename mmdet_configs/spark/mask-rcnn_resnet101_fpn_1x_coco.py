"""SparK, ResNet-101, 1x: the recipe of ResNet-50. No figure is published for this size."""

_base_ = '../_base_/spark_resnet.py'

model = dict(backbone=dict(arch='resnet101'))
expected = None
