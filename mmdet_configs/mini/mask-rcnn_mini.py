"""Mask R-CNN for small real data sets such as microscopy nuclei: a quarter of an hour on two CPU cores.

The demo's detector with more RoIs, masks of 28 × 28 pixels and small anchors. Every value is ours.
"""

_base_ = '../demo/mask-rcnn_demo.py'

side = 256
global_batch = base_batch = 4
base_lr = 1e-3
epochs = 4
model = dict(
    # Anchors of 8 to 256 pixels.
    rpn_head=dict(anchor_generator=dict(scales=[2, 4])),
    roi_head=dict(bbox_head=dict(fc_out_channels=256), mask_roi_extractor=dict(roi_layer=dict(output_size=14))),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=128), mask_size=28),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200), rcnn=dict(max_per_img=100)),
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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(batch_size=4, dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_epochs=epochs)
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
