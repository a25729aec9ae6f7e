"""BYOL, ResNet-50, 1000 epochs at a global batch of 4096, which must be on the devices at one time.

Source of every value: arXiv 2006.07733, its implementation details. Neither decay nor LARS's adaptation on biases and
norms.
"""

_base_ = '_base_/two_views.py'

epochs = 1000
global_batch = 4096
base_lr = 0.2

model = dict(type='BYOLPretrainer', arch='resnet50', momentum=0.004, hidden=4096, dim=256)
train_dataloader = dict(dataset=dict(views=dict(type='byol')))
train_cfg = dict(max_epochs=epochs)
optim_wrapper = dict(
    constructor='DecayGroups',
    optimizer=dict(type='TimmLars', lr=None, momentum=0.9, weight_decay=1.5e-6, trust_coeff=0.001),
)
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=10,
        start_factor=0.0,
        end_factor=0.0,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
