"""Fine-tuning a small network on small images such as CIFAR-10's: minutes on a CPU core. Every value is ours.

One learning rate for all layers, so that a network without pretraining can be trained by the same recipe.
"""

_base_ = 'demo_finetune.py'

side = 96
epochs = 25
global_batch = 64
base_lr = 8e-3
train_dataloader = dict(dataset=dict(transform=dict(input_size=side)))
evaluation_dataloader = dict(batch_size=250, dataset=dict(transform=dict(input_size=side)))
train_cfg = dict(max_epochs=epochs)
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=2,
        start_factor=0.01,
        end_factor=0.01,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
custom_hooks = [
    dict(type='WeightEmaHook', decay=0.99),
    dict(type='AccuracyHook', interval=5),
    dict(type='EstimateHook'),
    dict(type='ProgressHook'),
]
