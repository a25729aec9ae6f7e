"""SparK, ConvNeXt-L, fine-tuned on ImageNet-1k for 200 epochs."""

_base_ = '_base_/finetune_convnext.py'

epochs = 200
warmup_epochs = 10
base_lr = 1e-4
batch_limit = 64
model = dict(arch='convnext_large', drop_path_rate=0.5)
optim_wrapper = dict(optimizer=dict(weight_decay=0.02))
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
expected = dict(top1=85.4, tolerance=0.2, is_best=True, source='keyu-tian/SparK README')
