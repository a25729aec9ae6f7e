"""SparK, ResNet-50, 2x: 180,000 updates. Steps at 120,000 and 160,000: ours, twice those of 1x."""

_base_ = '../_base_/spark_resnet.py'

train_cfg = dict(max_updates=180_000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=180_000, milestones=[120_000, 160_000], gamma=0.25),
]
expected = dict(box_ap=43.4, mask_ap=39.4, tolerance=0.3, source='arXiv 2301.03580')
