"""What contrastive pretraining of ResNets on ImageNet-1k has in common."""

_base_ = 'runtime.py'

recipe_version = 1
expected = None

model = dict(
    arch=None,
    # As torchvision's: no residual branch starts at zero.
    network=dict(zero_init_last=False),
    data_preprocessor=dict(type='ViewsPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
train_dataloader = dict(
    num_workers=8,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='ImageSampler'),
    dataset=dict(type='Images', input_size=224),
)
train_cfg = dict(type='PretrainLoop')
optim_wrapper = dict(type='UpdateOptimWrapper', autocast=False)
custom_hooks = [dict(type='EstimateHook'), dict(type='TensorBoardHook', image_interval=0), dict(type='ProgressHook')]
