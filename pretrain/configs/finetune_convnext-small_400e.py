"""SparK, ConvNeXt-S, fine-tuned on ImageNet-1k for 400 epochs."""

_base_ = '_base_/finetune_convnext.py'

base_lr = 2e-4
model = dict(arch='convnext_small', drop_path_rate=0.3)
expected = dict(top1=84.1, tolerance=0.2, is_best=True, source='keyu-tian/SparK README')
