"""ConvNeXt-S trained with labels on ImageNet-1k, in SparK's recipe for COCO, 3x."""

_base_ = '../spark/mask-rcnn_convnext-small_fpn_3x_coco.py'

method = init = 'supervised'
expected = None
