"""SparK pretraining at toy scale: a minute on one CPU core.

The recipe is the paper's in shape (LAMB, warm-up then cosine, weight decay growing from 0.04 to 0.2, random
resized crops); sizes, batch and learning rate are ours, chosen for a few hundred steps on a CPU.
"""

_base_ = '_base_/runtime.py'

recipe_version = 2

side = 128
global_batch = 16
base_lr = 0.128
epochs = 2

model = dict(
    type='SparKPretrainer',
    arch='test_resnet',
    input_size=side,
    mask_ratio=0.6,
    ablation='spark',
    decoder_width=64,
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
train_dataloader = dict(
    num_workers=0, drop_last=True, sampler=dict(type='ImageSampler'), dataset=dict(type='Images', input_size=side)
)
train_cfg = dict(type='PretrainLoop', max_epochs=epochs)
optim_wrapper = dict(
    type='UpdateOptimWrapper',
    constructor='DecayGroups',
    optimizer=dict(type='TimmLamb', lr=None, betas=(0.9, 0.95), weight_decay=0.04, max_grad_norm=5.0),
)
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=1,
        start_factor=0.005,
        end_factor=0.001,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(type='CosineWeightDecay', end_factor=5.0, end=epochs, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=10))
custom_hooks = [dict(type='EstimateHook'), dict(type='TensorBoardHook', image_interval=0), dict(type='ProgressHook')]
env_cfg = dict(cudnn_benchmark=False)
log_processor = dict(window_size=10)
