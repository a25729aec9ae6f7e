"""ResNet-50 without pretraining, in SparK's recipe for COCO, 1x."""

_base_ = '../spark/mask-rcnn_resnet50_fpn_1x_coco.py'

method, init = 'scratch', None
expected = dict(
    box_ap=32.8,
    mask_ap=29.9,
    tolerance=1.0,
    source='HobbitLong/PyContrast pycontrast/detection/README.md (detectron2, another recipe)',
)
