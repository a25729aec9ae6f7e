"""ResNet-200 trained with labels on ImageNet-1k, in SparK's recipe for COCO, 1x."""

_base_ = '../spark/mask-rcnn_resnet200_fpn_1x_coco.py'

method = init = 'supervised'
expected = None
