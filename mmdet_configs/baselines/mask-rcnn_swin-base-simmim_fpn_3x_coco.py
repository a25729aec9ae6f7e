"""SimMIM's Swin-B, 3x, in the recipe of the supervised one: SimMIM publishes none for Mask R-CNN.

Papers differ in recipe, and quote this network with 50.4 to 52.3 box AP.
"""

_base_ = 'mask-rcnn_swin-base_fpn_3x_coco.py'

method = init = 'simmim'
expected = dict(box_ap=50.4, mask_ap=44.4, tolerance=2.0, source='Alpha-VL/FastConvMAE README, quoting')
