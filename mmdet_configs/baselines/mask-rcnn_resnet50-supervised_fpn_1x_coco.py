"""ResNet-50 trained with labels on ImageNet-1k, in SparK's recipe for COCO, 1x."""

_base_ = '../spark/mask-rcnn_resnet50_fpn_1x_coco.py'

method = init = 'supervised'
expected = dict(
    box_ap=39.7,
    mask_ap=35.9,
    tolerance=1.0,
    source='HobbitLong/PyContrast pycontrast/detection/README.md (detectron2, another recipe)',
)
