"""Mask R-CNN + FPN at toy scale: minutes on two CPU cores, for the embedded data set or any folder in COCO layout.

A diff over mmdet's own Mask R-CNN. Every value below is ours, chosen for speed on a CPU: it shows the road,
and no published figure belongs to it. Folder, categories and their number are filled in from --data-root.
"""

_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../_base_/runtime.py']

recipe_version = 2
width = 32
side = 96
global_batch = base_batch = 8
base_lr = 3e-3
epochs = 2

model = dict(
    backbone=dict(_delete_=True, type='SparKTimm', arch='test_resnet'),
    # Batch norm in neck and mask head, as in SparK's own recipe: from scratch, a short schedule needs it.
    neck=dict(in_channels=[32, 48, 192, 96], out_channels=width, norm_cfg=dict(type='BN')),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        # Anchors of 16 to 256 pixels: the objects are small because the images are.
        anchor_generator=dict(scales=[4]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, roi_layer=dict(sampling_ratio=1)),
        bbox_head=dict(in_channels=width, fc_out_channels=128, num_classes=10),
        # Masks of 14x14: an object is some 25 pixels wide here.
        mask_roi_extractor=dict(out_channels=width, roi_layer=dict(output_size=7, sampling_ratio=1)),
        mask_head=dict(
            norm_cfg=dict(type='BN'), num_convs=2, in_channels=width, conv_out_channels=width, num_classes=10
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5), mask_size=14),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=15)),
)

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(side, side), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(side, side), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    num_workers=0,
    drop_last=True,
    sampler=dict(type='ImageSampler'),
    dataset=dict(type='CocoDataset', filter_cfg=dict(filter_empty_gt=True, min_size=1), pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', test_mode=True, pipeline=test_pipeline),
)
test_evaluator = dict(type='CocoMetric', metric='segm', format_only=True)

train_cfg = dict(type='UpdateLoop', max_epochs=epochs)
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='UpdateOptimWrapper',
    optimizer=dict(type='AdamW', lr=None, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        begin=0,
        end=epochs,
        T_max=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(logger=dict(interval=20))
