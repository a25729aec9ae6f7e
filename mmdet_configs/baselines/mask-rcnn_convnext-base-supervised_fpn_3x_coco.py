"""ConvNeXt-B trained with labels on ImageNet-1k, in SparK's recipe for COCO, 3x."""

_base_ = '../spark/mask-rcnn_convnext-base_fpn_3x_coco.py'

method = init = 'supervised'
expected = dict(box_ap=47.7, mask_ap=43.2, tolerance=0.3, source='arXiv 2301.03580')
