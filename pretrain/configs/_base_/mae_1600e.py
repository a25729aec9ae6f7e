"""MAE pretraining on ImageNet-1k as published: what all sizes have in common.

Source of every value, unless a line says otherwise: facebookresearch/mae, PRETRAIN.md and main_pretrain.py, and
arXiv 2111.06377, table 8. Weight decay spares what has one dimension; positions are fixed.
"""

_base_ = 'runtime.py'

recipe_version = 1

epochs = 1600
warmup_epochs = 40
global_batch = 4096
base_lr = 1.5e-4
# Ours: the largest batch that is put on a device at a time, unless --batch-size says otherwise.
batch_limit = 512

model = dict(
    type='MAEPretrainer',
    arch=None,
    input_size=224,
    mask_ratio=0.75,
    decoder_width=512,
    decoder_depth=8,
    decoder_heads=16,
    norm_pix=True,
    xavier=True,
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
train_dataloader = dict(
    num_workers=10,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='ImageSampler'),
    dataset=dict(type='Images', input_size=224, views=dict(type='mae')),
)
train_cfg = dict(type='PretrainLoop', max_epochs=epochs)
optim_wrapper = dict(
    type='UpdateOptimWrapper',
    autocast=False,
    constructor='DecayGroups',
    optimizer=dict(type='AdamW', lr=None, betas=(0.9, 0.95), weight_decay=0.05),
)
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=warmup_epochs,
        start_factor=0.0,
        end_factor=0.0,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
custom_hooks = [dict(type='EstimateHook'), dict(type='TensorBoardHook', image_interval=20), dict(type='ProgressHook')]
