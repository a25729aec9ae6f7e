"""Supervised Swin-S, 3x."""

_base_ = '../_base_/swin.py'

model = dict(backbone=dict(arch='swin_small'))
expected = dict(box_ap=48.5, mask_ap=43.3, tolerance=0.3, source='Swin-Transformer-Object-Detection README')
