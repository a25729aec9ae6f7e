"""Cascade Mask R-CNN with ConvNeXt-B, 3x: the second table of Swin and ConvNeXt, from SparK's weights.

Source of every value, unless a line says otherwise: facebookresearch/ConvNeXt, in
`object_detection/configs/convnext/` the file `cascade_mask_rcnn_convnext_base_…_giou_4conv1f_adamw_3x_coco_in1k.py`.
Data and augmentation are those of its Mask R-CNN. Its authors train in float16; here it is bfloat16. SparK's authors
publish no figure for it.
"""

_base_ = 'mask-rcnn_convnext-base_fpn_3x_coco.py'

# Boxes are refined in three stages, each learning from better ones: mmdet's `cascade-mask-rcnn_r50_fpn.py`.
stages = [
    dict(overlap=0.5, stds=[0.1, 0.1, 0.2, 0.2]),
    dict(overlap=0.6, stds=[0.05, 0.05, 0.1, 0.1]),
    dict(overlap=0.7, stds=[0.033, 0.033, 0.067, 0.067]),
]
model = dict(
    type='CascadeRCNN',
    backbone=dict(drop_path_rate=0.7),
    # As in mmdet's cascade.
    rpn_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9, loss_weight=1.0)),
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=[
            dict(
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=stage['stds']),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for stage in stages
        ],
    ),
    train_cfg=dict(
        rpn=dict(allowed_border=0),
        rpn_proposal=dict(max_per_img=2000),
        rcnn=[
            dict(
                assigner=dict(
                    type='MaxIoUAssigner',
                    pos_iou_thr=stage['overlap'],
                    neg_iou_thr=stage['overlap'],
                    min_pos_iou=stage['overlap'],
                    match_low_quality=False,
                    ignore_iof_thr=-1,
                ),
                sampler=dict(type='RandomSampler', num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
                mask_size=28,
                pos_weight=-1,
                debug=False,
            )
            for stage in stages
        ],
    ),
)
optim_wrapper = dict(autocast=True, paramwise_cfg=dict(decay_rate=0.8))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
expected = None
