"""What the ConvNeXts change: 400 epochs, 20 of warm-up, each image three times."""

_base_ = 'finetune_imagenet.py'

epochs = 400
warmup_epochs = 20
train_dataloader = dict(sampler=dict(type='RepeatedImageSampler', repeats=3))
train_cfg = dict(max_epochs=epochs)
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
