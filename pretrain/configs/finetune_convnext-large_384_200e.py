"""SparK, ConvNeXt-L at 384 pixels, fine-tuned on ImageNet-1k for 200 epochs."""

_base_ = 'finetune_convnext-large_200e.py'

warmup_epochs = 20
side = 384
global_batch = 1024
base_lr = 6e-5
batch_limit = 16
init = 'spark_384'
optim_wrapper = dict(optimizer=dict(weight_decay=0.01))
# AutoAugment in place of TrivialAugment; images are evaluated whole, resized straight to the square.
train_dataloader = dict(dataset=dict(transform=dict(input_size=side, augment='autoaugment_v0')))
evaluation_dataloader = dict(batch_size=32, dataset=dict(transform=dict(input_size=side, squash=True)))
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=warmup_epochs,
        start_factor=0.005,
        end_factor=0.001,
        end=200,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
custom_hooks = [
    dict(type='WeightEmaHook', decay=0.99995),
    dict(type='AccuracyHook'),
    dict(type='EstimateHook'),
    dict(type='TensorBoardHook', image_interval=0),
    dict(type='ProgressHook'),
]
expected = dict(top1=86.0, tolerance=0.2, is_best=True, source='keyu-tian/SparK README')
