"""The 3x schedule with the augmentation of DETR and Sparse R-CNN, which Swin and ConvNeXt take.

Flip; then either multi-scale resize, or resize to 400, 500 or 600, a crop of 384 to 600 pixels, and that multi-scale
resize. Source: mmdet `configs/swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py`.
"""

_base_ = 'schedule_3x_adamw.py'

multi_scale = dict(
    type='RandomChoiceResize',
    keep_ratio=True,
    scales=[
        (480, 1333),
        (512, 1333),
        (544, 1333),
        (576, 1333),
        (608, 1333),
        (640, 1333),
        (672, 1333),
        (704, 1333),
        (736, 1333),
        (768, 1333),
        (800, 1333),
    ],
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [multi_scale],
            [
                dict(type='RandomChoiceResize', scales=[(400, 1333), (500, 1333), (600, 1333)], keep_ratio=True),
                dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True),
                multi_scale,
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
