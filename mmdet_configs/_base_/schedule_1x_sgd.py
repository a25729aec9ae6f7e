"""mmdet's own 1x schedule: SGD, 12 epochs, steps at 8 and 11. Source: mmdet `_base_/schedules/schedule_1x.py`."""

_base_ = 'mask-rcnn_coco.py'

base_lr = 0.02
train_cfg = dict(type='UpdateLoop', max_epochs=12)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=None, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
