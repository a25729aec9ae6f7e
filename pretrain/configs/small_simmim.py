"""SimMIM of a Swin with 2.3 million parameters: 22 of an image's 36 blocks are hidden. Every value is ours."""

_base_ = '_base_/small.py'

base_lr = 2e-3
model = dict(type='SimMIMPretrainer', arch='swin_mini', input_size=96, mask_patch=16, mask_ratio=0.6)
train_dataloader = dict(dataset=dict(views=dict(type='simmim', mask_patch=16, mask_ratio=0.6)))
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.999)), clip_grad=dict(max_norm=5.0))
