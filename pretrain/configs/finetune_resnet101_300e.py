"""SparK, ResNet-101, fine-tuned on ImageNet-1k for 300 epochs."""

_base_ = '_base_/finetune_resnet.py'

base_lr = 1e-3
model = dict(arch='resnet101', drop_path_rate=0.2)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
expected = dict(top1=82.2, tolerance=0.2, is_best=True, source='keyu-tian/SparK README')
