"""The small data sets' Mask R-CNN with a Swin of 2.3 million parameters, as SimMIM pretrains it.

Every value is ours.
"""

_base_ = 'mask-rcnn_mini.py'

model = dict(
    backbone=dict(_delete_=True, type='SparKSwin', arch='swin_mini', window_size=3, drop_path_rate=0.0),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
