"""SparK's recipe for ResNets, written for detectron2: synchronised batch norm everywhere, nothing frozen.

Source of every value, unless a line says otherwise: SparK's released detection code. What it leaves to detectron2 has
detectron2's value here where mmdet's configs reach it; docs/fidelity.md lists what they do not reach.
"""

_base_ = 'mask-rcnn_coco.py'

recipe_version = 2
norm = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(_delete_=True, type='SparKResNet', arch='resnet50', norm_cfg=norm, norm_eval=False),
    # Fresh weights of FPN and of the box head's linear layer: detectron2's c2_xavier_fill.
    neck=dict(norm_cfg=norm, init_cfg=dict(type='Caffe2Xavier', layer='Conv2d')),
    roi_head=dict(
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead',
            norm_cfg=norm,
            init_cfg=[
                dict(type='Normal', std=0.01, override=dict(name='fc_cls')),
                dict(type='Normal', std=0.001, override=dict(name='fc_reg')),
                dict(type='Caffe2Xavier', override=dict(name='shared_fcs')),
            ],
        ),
        mask_head=dict(norm_cfg=norm),
    ),
    train_cfg=dict(
        # detectron2's matchers: each object has its best anchor however low their overlap; RoIs have no such rule.
        rpn=dict(assigner=dict(min_pos_iou=0.0)),
        rcnn=dict(assigner=dict(match_low_quality=False)),
    ),
)
# detectron2 resizes with Pillow, which averages over all pixels that it leaves out.
resize = dict(keep_ratio=True, backend='pillow')
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    # Short side drawn from 480, 512, … 896, long side at most 1333.
    dict(type='RandomChoiceResize', scales=[(1333, side) for side in range(480, 897, 32)], **resize),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(1333, 800), **resize),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

base_lr = 2.5e-4
# 90,000 updates are detectron2's 1x.
train_cfg = dict(type='UpdateLoop', max_updates=90_000)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=None, betas=(0.9, 0.999), weight_decay=1e-4),
    # None on norms: detectron2's default (SOLVER.WEIGHT_DECAY_NORM), which the recipe leaves as it is.
    constructor='SparKLayerDecay',
    paramwise_cfg=dict(decay_rate=0.6, no_decay=['norm']),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=90_000, milestones=[60_000, 80_000], gamma=0.25),
]
# Statistics of batch norm over 200 batches with the final weights, detectron2's default number.
custom_hooks = [dict(type='EstimateHook'), dict(type='ProgressHook'), dict(type='PreciseBatchNormHook', updates=200)]
method = init = 'spark'
