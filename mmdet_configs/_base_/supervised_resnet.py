"""mmdet's own Mask R-CNN with a supervised ResNet: stem and first stage frozen, batch norm in evaluation mode.

Source: mmdet `configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py`.
"""

_base_ = 'schedule_1x_sgd.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SparKResNet',
        arch='resnet50',
        frozen_stages=1,
        norm_eval=True,
        norm_cfg=dict(type='BN', requires_grad=True),
    )
)
method = init = 'supervised'
