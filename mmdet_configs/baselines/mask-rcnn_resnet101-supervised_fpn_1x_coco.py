"""ResNet-101 trained with labels on ImageNet-1k, in SparK's recipe for COCO, 1x."""

_base_ = '../spark/mask-rcnn_resnet101_fpn_1x_coco.py'

method = init = 'supervised'
expected = None
