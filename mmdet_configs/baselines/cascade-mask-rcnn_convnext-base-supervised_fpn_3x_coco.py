"""Cascade Mask R-CNN with ConvNeXt-B trained with labels on ImageNet-1k, 3x: ConvNeXt's own."""

_base_ = '../spark/cascade-mask-rcnn_convnext-base_fpn_3x_coco.py'

method = init = 'supervised'
