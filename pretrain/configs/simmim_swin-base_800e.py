"""SimMIM, Swin-B, 800 epochs at 192 pixels with windows of 6.

Source of what differs from 100 epochs: arXiv 2111.09886, section 4.1.3 and appendix, by mmpretrain's config
simmim_swin-base-w6_16xb128-amp-coslr-800e_in1k-192px.py: half the learning rate, a tenth of it from epoch 700 on.
"""

_base_ = '_base_/simmim_100e.py'

epochs = 800
base_lr = 1e-4
model = dict(arch='swin_base')
train_cfg = dict(max_epochs=epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.005, begin=0, end=10, by_epoch=True, convert_to_iter_based=True),
    dict(
        type='MultiStepLR', milestones=[700], gamma=0.1, begin=0, end=epochs, by_epoch=True, convert_to_iter_based=True
    ),
]
