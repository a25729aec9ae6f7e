"""Supervised Swin-B, 3x."""

_base_ = '../_base_/swin.py'

model = dict(backbone=dict(arch='swin_base', drop_path_rate=0.3), neck=dict(in_channels=[128, 256, 512, 1024]))
expected = dict(box_ap=48.5, mask_ap=43.2, tolerance=0.3, source='arXiv 2301.03580')
