"""ResNet-152 trained with labels on ImageNet-1k, in SparK's recipe for COCO, 1x."""

_base_ = '../spark/mask-rcnn_resnet152_fpn_1x_coco.py'

method = init = 'supervised'
expected = None
