"""MAE, ViT-B, 800 epochs: the schedule that PRETRAIN.md of the released code gives."""

_base_ = '_base_/mae_1600e.py'

expected = None
epochs = 800
model = dict(arch='vit_base')
train_cfg = dict(max_epochs=epochs)
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=40,
        start_factor=0.0,
        end_factor=0.0,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
