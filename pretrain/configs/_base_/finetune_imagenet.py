"""Fine-tuning a pretrained network on ImageNet-1k: what SparK's recipes of all sizes have in common.

Source of every value, unless a line says otherwise: SparK's released fine-tuning code. `global_batch` and `base_lr` are
the recipe's; the learning rate is base_lr × global_batch / 256, and batch size and accumulation follow from
`global_batch` and the number of processes when a run starts. Number of classes and places follow from --data-root.
"""

_base_ = 'runtime.py'

recipe_version = 2

epochs = 300
warmup_epochs = 5
global_batch = 4096
base_lr = None
# Ours: the largest batch that is put on a device at a time, unless --batch-size says otherwise.
batch_limit = 128
side = 224
method = init = 'spark'

model = dict(
    type='SparKClassifier',
    arch=None,
    num_classes=1000,
    drop_path_rate=None,
    loss='soft_target',
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
    label_smoothing=0.1,
)
train_dataloader = dict(
    num_workers=8,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='ImageSampler'),
    dataset=dict(
        type='ClassImages',
        split='train',
        transform=dict(type='train', input_size=side, augment='trivial', scale=(0.08, 1.0), erasing=0.25),
    ),
)
evaluation_dataloader = dict(
    batch_size=128,
    num_workers=8,
    pin_memory=True,
    drop_last=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ClassImages', split='val', transform=dict(type='evaluation', input_size=side, crop_ratio=0.95)),
)
train_cfg = dict(type='UpdateLoop', max_epochs=epochs)
optim_wrapper = dict(
    type='UpdateOptimWrapper',
    autocast=False,
    constructor='SparKLayerDecay',
    optimizer=dict(type='AdamW', lr=None, betas=(0.9, 0.999), weight_decay=0.01),
    # None on biases, norms and layer scale: all that has one dimension.
    paramwise_cfg=dict(decay_rate=0.7, no_decay=['1d']),
)
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=warmup_epochs,
        start_factor=0.005,
        end_factor=0.001,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
custom_hooks = [
    dict(type='WeightEmaHook', decay=0.9999),
    dict(type='AccuracyHook'),
    dict(type='EstimateHook'),
    dict(type='TensorBoardHook', image_interval=0),
    dict(type='ProgressHook'),
]
