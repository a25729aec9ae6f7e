"""What MAE's and SimMIM's fine-tuning have in common: 100 epochs, RandAugment, class tokens and tables without decay.

Source of every value, unless a line says otherwise: the released code of both (mae FINETUNE.md and main_finetune.py,
SimMIM config.py and its configs), which agree in them. Neither keeps an EMA.
"""

_base_ = 'finetune_imagenet.py'

recipe_version = 1
epochs = 100
train_dataloader = dict(dataset=dict(transform=dict(augment='randaugment_m9')))
evaluation_dataloader = dict(dataset=dict(transform=dict(crop_ratio=0.875)))
train_cfg = dict(max_epochs=epochs)
model = dict(drop_path_rate=0.1)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
custom_hooks = [
    dict(type='AccuracyHook'),
    dict(type='EstimateHook'),
    dict(type='TensorBoardHook', image_interval=0),
    dict(type='ProgressHook'),
]
