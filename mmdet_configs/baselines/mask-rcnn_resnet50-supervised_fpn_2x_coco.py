"""ResNet-50 trained with labels on ImageNet-1k, in SparK's recipe for COCO, 2x."""

_base_ = '../spark/mask-rcnn_resnet50_fpn_2x_coco.py'

method = init = 'supervised'
expected = dict(
    box_ap=41.6,
    mask_ap=37.6,
    tolerance=1.0,
    source='HobbitLong/PyContrast pycontrast/detection/README.md (detectron2, another recipe)',
)
