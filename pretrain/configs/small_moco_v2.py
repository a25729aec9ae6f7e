"""MoCo v2 of a small ResNet, with a queue of 4096 keys. Every value is ours.

Weight decay is on all parameters, as MoCo's is.
"""

_base_ = '_base_/small.py'

base_lr = 0.12
model = dict(
    type='MoCoPretrainer',
    arch='test_resnet',
    queue_len=4096,
    momentum=0.01,
    temperature=0.2,
    dim=64,
    data_preprocessor=dict(type='ViewsPreprocessor'),
)
train_dataloader = dict(dataset=dict(views=dict(type='moco_v2')))
optim_wrapper = dict(
    _delete_=True, type='UpdateOptimWrapper', optimizer=dict(type='SGD', lr=None, momentum=0.9, weight_decay=1e-4)
)
