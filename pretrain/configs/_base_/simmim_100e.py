"""SimMIM pretraining on ImageNet-1k: what both published schedules have in common.

Source of every value, unless a line says otherwise: microsoft/SimMIM,
configs/swin_base__100ep/simmim_pretrain__swin_base__img192_window6__100ep.yaml, config.py and README. Weight decay
spares what has one dimension, the mask token and the tables of relative positions.

Ours: the cosine begins behind the warm-up, and not at the first step.
"""

_base_ = 'runtime.py'

recipe_version = 1
expected = None

epochs = 100
# 16 devices of 128.
global_batch = 2048
base_batch = 512
base_lr = 2e-4
# Ours: the largest batch that is put on a device at a time, unless --batch-size says otherwise.
batch_limit = 128

model = dict(
    type='SimMIMPretrainer',
    arch=None,
    input_size=192,
    window_size=6,
    drop_path_rate=0.0,
    mask_patch=32,
    mask_ratio=0.6,
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
train_dataloader = dict(
    num_workers=8,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='ImageSampler'),
    dataset=dict(type='Images', input_size=192, views=dict(type='simmim', mask_patch=32, mask_ratio=0.6)),
)
train_cfg = dict(type='PretrainLoop', max_epochs=epochs)
optim_wrapper = dict(
    type='UpdateOptimWrapper',
    autocast=False,
    constructor='DecayGroups',
    clip_grad=dict(max_norm=5.0),
    optimizer=dict(type='AdamW', lr=None, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    # From 1e-6 to 2e-4, and down to 1e-5, for 512 images.
    dict(
        type='WarmupCosine',
        warmup=10,
        start_factor=0.005,
        end_factor=0.05,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
custom_hooks = [dict(type='EstimateHook'), dict(type='TensorBoardHook', image_interval=20), dict(type='ProgressHook')]
