"""SparK, ResNet-50, fine-tuned on ImageNet-1k for 300 epochs."""

_base_ = '_base_/finetune_resnet.py'

base_lr = 2e-3
model = dict(arch='resnet50', drop_path_rate=0.05)
expected = dict(top1=80.6, tolerance=0.2, is_best=True, source='keyu-tian/SparK README')
