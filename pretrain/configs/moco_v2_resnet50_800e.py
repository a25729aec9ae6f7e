"""MoCo v2, ResNet-50, 800 epochs at a global batch of 256, published on 8 GPUs.

Source of every value, unless a line says otherwise: arXiv 2003.04297 and facebookresearch/moco, main_moco.py with
--mlp --moco-t 0.2 --aug-plus --cos. Weight decay is on all parameters. Theirs steps the cosine by epochs, this one by
updates.
"""

_base_ = '_base_/two_views.py'

epochs = 800
global_batch = base_batch = 256
base_lr = 0.03

model = dict(
    type='MoCoPretrainer', arch='resnet50', queue_len=65536, momentum=0.001, temperature=0.2, hidden=2048, dim=128
)
train_dataloader = dict(dataset=dict(views=dict(type='moco_v2')))
train_cfg = dict(max_epochs=epochs)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=None, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=0,
        start_factor=1.0,
        end_factor=0.0,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
