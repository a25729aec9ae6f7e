"""Mask2Former with ResNet-50 for instance segmentation, 50 epochs, from SparK's weights.

Source of every value, unless a line says otherwise: mmdet `configs/mask2former/mask2former_r50_8xb2-lsj-50e_coco.py`,
of which loaders and hooks are taken as any config of mmdet's is (docs/detection.md). SparK's authors publish no
figure for it.
"""

_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'

custom_imports = dict(imports=['spark_bench'])
recipe_version = 1
global_batch = base_batch = 16
base_lr = 1e-4
model = dict(
    backbone=dict(
        # Ours: batch norm trains, as in SparK's own recipe, where mmdet's keeps the statistics of pretraining. SparK's
        # are those of masked images.
        _delete_=True,
        type='SparKResNet',
        arch='resnet50',
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    )
)
train_cfg = dict(_delete_=True, type='UpdateLoop', max_updates=368_750)
optim_wrapper = dict(type='UpdateOptimWrapper', autocast=False, optimizer=dict(lr=None))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=368_750, milestones=[327_778, 355_092], gamma=0.1)
]
method = init = 'spark'
expected = None
