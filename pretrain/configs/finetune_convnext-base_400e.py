"""SparK, ConvNeXt-B, fine-tuned on ImageNet-1k for 400 epochs."""

_base_ = '_base_/finetune_convnext.py'

base_lr = 1e-4
model = dict(arch='convnext_base', drop_path_rate=0.4)
expected = dict(top1=84.8, tolerance=0.2, is_best=True, source='keyu-tian/SparK README')
