"""SparK, ResNet-50, 1x. See `_base_/spark_resnet.py` for the sources."""

_base_ = '../_base_/spark_resnet.py'

expected = dict(box_ap=41.6, mask_ap=37.7, tolerance=0.3, source='arXiv 2301.03580')
