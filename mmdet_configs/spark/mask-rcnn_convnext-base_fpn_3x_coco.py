"""SparK, ConvNeXt-B, 3x. See `_base_/spark_convnext.py` for the sources."""

_base_ = '../_base_/spark_convnext.py'

expected = dict(
    box_ap=51.2, mask_ap=45.1, tolerance=0.3,
    source='arXiv 2301.03580')
