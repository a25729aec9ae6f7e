"""MAE, ViT-B, fine-tuned on ImageNet-1k for 100 epochs.

Source of every value here: facebookresearch/mae, FINETUNE.md and main_finetune.py.
"""

_base_ = '_base_/finetune_transformer.py'

method = init = 'mae'
global_batch = 1024
base_lr = 5e-4
epochs = 100
# The mean of the patches, not the class token.
model = dict(arch='vit_base', global_pool='avg', head_std=2e-5)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.65, no_decay=['1d', 'pos_embed', 'cls_token']))
# From 0, to 1e-6 of a peak of 2e-3.
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=5,
        start_factor=0.0,
        end_factor=5e-4,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
expected = dict(top1=83.6, tolerance=0.2, source='facebookresearch/mae README')
