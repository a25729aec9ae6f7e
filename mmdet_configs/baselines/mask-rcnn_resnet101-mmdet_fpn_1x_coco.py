"""mmdet's own Mask R-CNN with ResNet-101, 1x."""

_base_ = '../_base_/supervised_resnet.py'

model = dict(backbone=dict(arch='resnet101'))
expected = dict(box_ap=40.0, mask_ap=36.1, tolerance=0.3, source='open-mmlab/mmdetection configs/mask_rcnn/README.md')
