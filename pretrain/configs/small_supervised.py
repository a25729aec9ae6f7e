"""Supervised pretraining of a small network. Every value is ours."""

_base_ = '_base_/small.py'

base_lr = 4e-3
model = dict(_delete_=True, type='SupervisedPretrainer', arch='test_resnet', num_classes=10, label_smoothing=0.1)
train_dataloader = dict(
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        _delete_=True,
        type='ClassImages',
        split='train',
        transform=dict(type='train', input_size=96, augment='none', scale=(0.35, 1.0), erasing=0.0),
    ),
)
