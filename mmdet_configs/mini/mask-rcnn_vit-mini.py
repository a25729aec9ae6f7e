"""The small data sets' Mask R-CNN with a ViT of 1.3 million parameters, as MAE pretrains it.

The neck makes four maps of the one that a plain ViT has, as ViTDet's does; every block attends to all 256 patches.
Every value is ours.
"""

_base_ = 'mask-rcnn_mini.py'

model = dict(
    backbone=dict(_delete_=True, type='SparKViT', arch='vit_mini', input_size=256, window_size=0, drop_path_rate=0.0),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=128, out_channels=32),
)
