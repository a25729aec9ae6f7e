"""Mask R-CNN with FPN on COCO: what every recipe has in common. A diff over mmdet's own Mask R-CNN.

Batches: an update of the weights sees `global_batch` images, however many devices there are; batch size and
accumulation follow from it when a run starts, with at most `batch_limit` images on a device at a time. Where
`global_batch` is changed, the learning rate is scaled with it, from `base_lr` at `base_batch`.

Folder and categories are filled in from --data-root.
"""

_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'runtime.py']

recipe_version = 1
global_batch = base_batch = 16
base_lr = None
# Ours. In bfloat16 a step takes 4 GB (ResNet-50) to 13 GB (ConvNeXt-L): docs/gpu.md.
batch_limit = 2
data_root = 'data/coco/'

# Short side 800, long side at most 1333, flip: mmdet's `coco_instance`.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    # Images of a batch are all wide or all tall, as in mmdet's AspectRatioBatchSampler.
    sampler=dict(type='GroupedImageSampler'),
    dataset=dict(
        type='SeededCocoDataset',
        ann_file='annotations/instances_train2017.json',
        data_root=data_root,
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        ann_file='annotations/instances_val2017.json',
        data_root=data_root,
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='CocoMetric', metric='segm', format_only=True)

test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='UpdateOptimWrapper', autocast=False)
# A checkpoint every 2,000 updates, about an hour on 8 devices, beside those at the end of epochs.
default_hooks = dict(checkpoint=dict(interval=2000))
env_cfg = dict(cudnn_benchmark=False)
log_processor = dict(type='LogProcessor', by_epoch=True, window_size=50)
