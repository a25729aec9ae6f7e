"""ConvNeXt-T without pretraining, in ConvNeXt's recipe for COCO, 3x."""

_base_ = '../spark/mask-rcnn_convnext-tiny_fpn_3x_coco.py'

method, init = 'scratch', None
expected = None
