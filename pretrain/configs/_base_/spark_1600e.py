"""SparK pretraining on ImageNet-1k as published: what all sizes have in common.

Source of every value, unless a line says otherwise: arXiv 2301.03580 and its authors' released code. `global_batch` and
`base_lr` are the recipe's; the learning rate is base_lr × global_batch / 256, and batch size and accumulation follow
from `global_batch` and the number of processes when a run starts.
"""

_base_ = 'runtime.py'

recipe_version = 1

epochs = 1600
warmup_epochs = 40
global_batch = 4096
base_lr = 2e-4
# Ours: the largest batch that is put on a device at a time, unless --batch-size says otherwise.
batch_limit = 128

model = dict(
    type='SparKPretrainer',
    arch=None,
    input_size=224,
    mask_ratio=0.6,
    ablation='spark',
    decoder_width=768,
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
train_dataloader = dict(
    num_workers=8,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='ImageSampler'),
    dataset=dict(type='Images', input_size=224, bad_images='fail'),
)
train_cfg = dict(type='PretrainLoop', max_epochs=epochs)
optim_wrapper = dict(
    type='UpdateOptimWrapper',
    autocast=False,
    constructor='DecayGroups',
    optimizer=dict(type='TimmLamb', lr=None, betas=(0.9, 0.95), weight_decay=0.04, max_grad_norm=5.0),
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
    ),
    # From 0.04 to 0.2.
    dict(type='CosineWeightDecay', end_factor=5.0, end=epochs, by_epoch=True, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EstimateHook'), dict(type='TensorBoardHook', image_interval=20), dict(type='ProgressHook')]
