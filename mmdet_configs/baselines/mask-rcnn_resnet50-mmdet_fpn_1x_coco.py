"""mmdet's own Mask R-CNN with ResNet-50, 1x."""

_base_ = '../_base_/supervised_resnet.py'

expected = dict(box_ap=38.2, mask_ap=34.7, tolerance=0.3, source='open-mmlab/mmdetection configs/mask_rcnn/README.md')
