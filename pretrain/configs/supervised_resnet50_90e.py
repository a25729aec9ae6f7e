"""Supervised ResNet-50 on ImageNet-1k, 90 epochs at a global batch of 256: the usual reference of transfers.

Source of every value: pytorch/vision, references/classification, as of its first ResNet-50 weights: SGD 0.1, a tenth
of it at epochs 30 and 60, weight decay on all parameters, random resized crops and flips.

Ours: crops are resized by bicubic interpolation, theirs by bilinear; the last norm of a residual branch starts at 0, as
timm has it, theirs at 1.
"""

_base_ = '_base_/runtime.py'

recipe_version = 1
expected = None

epochs = 90
global_batch = base_batch = 256
base_lr = 0.1
# Ours: the largest batch that is put on a device at a time, unless --batch-size says otherwise.
batch_limit = 256

model = dict(type='SupervisedPretrainer', arch='resnet50', num_classes=1000)
train_dataloader = dict(
    num_workers=8,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='ImageSampler'),
    dataset=dict(
        type='ClassImages',
        split='train',
        transform=dict(type='train', input_size=224, augment='none', scale=(0.08, 1.0), erasing=0.0),
    ),
)
train_cfg = dict(type='PretrainLoop', max_epochs=epochs)
optim_wrapper = dict(type='UpdateOptimWrapper', optimizer=dict(type='SGD', lr=None, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[30, 60], gamma=0.1, end=epochs, by_epoch=True, convert_to_iter_based=True)
]
custom_hooks = [dict(type='EstimateHook'), dict(type='TensorBoardHook', image_interval=0), dict(type='ProgressHook')]
