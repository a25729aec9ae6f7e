"""Supervised Swin-T, 3x."""

_base_ = '../_base_/swin.py'

expected = dict(box_ap=46.0, mask_ap=41.6, tolerance=0.3, source='open-mmlab/mmdetection configs/swin/README.md')
