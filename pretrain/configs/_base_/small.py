"""Pretraining a small network on small images such as CIFAR-10's or the embedded ones, by any method but SparK.

Every value is ours. With CIFAR-10's 50,000 images: some 40 minutes on a CPU core.
"""

_base_ = 'runtime.py'

recipe_version = 1
expected = None

side = 96
epochs = 5
global_batch = 64

model = dict(
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
)
train_dataloader = dict(
    num_workers=0, drop_last=True, sampler=dict(type='ImageSampler'), dataset=dict(type='Images', input_size=side)
)
train_cfg = dict(type='PretrainLoop', max_epochs=epochs)
optim_wrapper = dict(
    type='UpdateOptimWrapper',
    constructor='DecayGroups',
    optimizer=dict(type='AdamW', lr=None, betas=(0.9, 0.95), weight_decay=0.05),
)
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=1,
        start_factor=0.01,
        end_factor=0.001,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
default_hooks = dict(logger=dict(interval=10))
custom_hooks = [dict(type='EstimateHook'), dict(type='TensorBoardHook', image_interval=0), dict(type='ProgressHook')]
env_cfg = dict(cudnn_benchmark=False)
log_processor = dict(window_size=10)
