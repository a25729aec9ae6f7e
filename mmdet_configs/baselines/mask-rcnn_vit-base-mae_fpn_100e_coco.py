"""MAE's ViT-B as ViTDet fine-tunes it: plain backbone, simple feature pyramid, 100 epochs of large-scale jitter.

Source of every value, unless a line says otherwise: detectron2 projects/ViTDet, `mask_rcnn_vitdet_b_100ep`.
"""

_base_ = '../_base_/mask-rcnn_coco.py'

global_batch = base_batch = 64
base_lr = 1e-4
# Ours, for devices of 16 to 24 GB: an image has 4,096 patches, and four blocks attend to all of them.
batch_limit = 1
norm = dict(type='mmpretrain.LN2d', eps=1e-6)
square = (1024, 1024)
model = dict(
    # Images are padded to the square with the mean colour; for evaluation the backbone does so itself.
    data_preprocessor=dict(batch_augments=[dict(type='BatchFixedSizePad', size=square, pad_mask=True)]),
    backbone=dict(_delete_=True, type='SparKViT', arch='vit_base', input_size=1024, window_size=14, drop_path_rate=0.1),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=768, out_channels=256),
    rpn_head=dict(num_convs=2),
    roi_head=dict(bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm), mask_head=dict(norm_cfg=norm)),
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=square, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_type='absolute', crop_size=square, recompute_bbox=True, allow_negative_crop=True),
    # An image that is left without objects stays, as background.
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=square, keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

# 100 epochs of 118,000 images.
train_cfg = dict(type='UpdateLoop', max_updates=184_375)
optim_wrapper = dict(
    # 16-bit, in bfloat16.
    autocast=True,
    optimizer=dict(type='AdamW', lr=None, betas=(0.9, 0.999), weight_decay=0.1),
    # ViTDet means to spare all norms, but its test misses those of pyramid and heads; here they are spared too.
    constructor='SparKLayerDecay',
    paramwise_cfg=dict(decay_rate=0.7, no_decay=['norm', 'pos_embed']),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=184_375, milestones=[163_889, 177_546], gamma=0.1),
]
method = init = 'mae'
expected = dict(box_ap=51.6, mask_ap=45.9, tolerance=0.3, source='detectron2 projects/ViTDet README')
