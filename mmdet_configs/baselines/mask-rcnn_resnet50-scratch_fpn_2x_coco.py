"""ResNet-50 without pretraining, in SparK's recipe for COCO, 2x."""

_base_ = '../spark/mask-rcnn_resnet50_fpn_2x_coco.py'

method, init = 'scratch', None
expected = None
