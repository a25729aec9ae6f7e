"""Classification fine-tuning at toy scale: seconds on one CPU core. Every value is ours."""

_base_ = '_base_/runtime.py'

recipe_version = 2

side = 64
global_batch = 32
base_lr = 0.016
epochs = 4

model = dict(type='SparKClassifier', arch='test_resnet', num_classes=10, label_smoothing=0.1)
train_dataloader = dict(
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='ImageSampler'),
    dataset=dict(
        type='ClassImages',
        split='train',
        transform=dict(type='train', input_size=side, augment='none', scale=(0.5, 1.0), erasing=0.0),
    ),
)
evaluation_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ClassImages', split='val', transform=dict(type='evaluation', input_size=side, crop_ratio=1.0)),
)
train_cfg = dict(type='UpdateLoop', max_epochs=epochs)
optim_wrapper = dict(
    type='UpdateOptimWrapper',
    constructor='SparKLayerDecay',
    optimizer=dict(type='AdamW', lr=None, weight_decay=0.05),
    paramwise_cfg=dict(decay_rate=1.0, no_decay=['1d']),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=1,
        start_factor=0.01,
        end_factor=0.01,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
default_hooks = dict(logger=dict(interval=20))
custom_hooks = [dict(type='AccuracyHook'), dict(type='EstimateHook'), dict(type='ProgressHook')]
env_cfg = dict(cudnn_benchmark=False)
log_processor = dict(window_size=20)
