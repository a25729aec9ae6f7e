"""mmdet's own Mask2Former with ResNet-50 for instance segmentation: batch norm as it was trained on ImageNet."""

_base_ = '../spark/mask2former_resnet50_50e_coco.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True))
method = init = 'supervised'
expected = dict(
    _delete_=True,
    box_ap=45.7,
    mask_ap=42.9,
    tolerance=0.3,
    source='open-mmlab/mmdetection configs/mask2former/metafile.yml',
)
