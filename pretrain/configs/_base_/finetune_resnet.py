"""What the ResNets change: LAMB, binary cross entropy, little mixup.

Batch: the recipe's 2048. A later version of the released code has 4096 as its default, with the same base learning
rate.
"""

_base_ = 'finetune_imagenet.py'

global_batch = 2048
model = dict(loss='binary', mixup_alpha=0.1)
optim_wrapper = dict(optimizer=dict(
    _delete_=True, type='TimmLamb', lr=None, betas=(0.9, 0.999), weight_decay=0.02, max_grad_norm=None,
    always_adapt=True, bias_correction=False))
