"""BYOL of a small ResNet. Every value is ours."""

_base_ = '_base_/small.py'

base_lr = 2e-3
model = dict(
    type='BYOLPretrainer',
    arch='test_resnet',
    momentum=0.01,
    hidden=256,
    dim=64,
    data_preprocessor=dict(type='ViewsPreprocessor'),
)
train_dataloader = dict(dataset=dict(views=dict(type='byol')))
