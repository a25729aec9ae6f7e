"""MAE of a ViT with 1.2 million parameters: nine of an image's 36 patches are seen. Every value is ours."""

_base_ = '_base_/small.py'

base_lr = 2e-3
model = dict(
    type='MAEPretrainer',
    arch='vit_mini',
    input_size=96,
    mask_ratio=0.75,
    decoder_width=96,
    decoder_depth=2,
    decoder_heads=4,
    norm_pix=True,
)
train_dataloader = dict(dataset=dict(views=dict(type='mae')))
