"""ResNet-101 without pretraining, in SparK's recipe for COCO, 1x."""

_base_ = '../spark/mask-rcnn_resnet101_fpn_1x_coco.py'

method, init = 'scratch', None
expected = None
