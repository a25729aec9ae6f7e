"""What the ResNets change: LAMB, binary cross entropy, little mixup.

Batch: 2048. Earlier versions of the released code had 4096, which its commit a63e386 corrected (their issue 58).
"""

_base_ = 'finetune_imagenet.py'

global_batch = 2048
model = dict(loss='binary', mixup_alpha=0.1)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='TimmLamb',
        lr=None,
        betas=(0.9, 0.999),
        weight_decay=0.02,
        max_grad_norm=None,
        always_adapt=True,
        bias_correction=False,
    )
)
