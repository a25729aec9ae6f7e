"""ConvNeXt-T trained with labels on ImageNet-1k, in ConvNeXt's recipe for COCO, 3x."""

_base_ = '../spark/mask-rcnn_convnext-tiny_fpn_3x_coco.py'

method = init = 'supervised'
expected = dict(
    _delete_=True,
    box_ap=46.2,
    mask_ap=41.7,
    tolerance=0.3,
    source='facebookresearch/ConvNeXt object_detection/README.md',
)
