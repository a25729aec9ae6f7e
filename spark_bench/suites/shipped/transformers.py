"""SparK's ConvNeXt-B against Swin-B and MAE's ViT-B: Mask R-CNN on COCO, and ImageNet top-1.

Top-1 of supervised transformers is published only. Multiply-adds as in `scaling`; ViT-B's at 1024 × 1024 pixels by the
same rule; in pretraining, MAE's of a quarter of the patches and 4.9 of its decoder, SimMIM's at 192 × 192 pixels.
"""

title = 'ConvNeXt-B with SparK against Swin-B and ViT-B'
note = "Top-1 of supervised transformers is published only; their weights are the publishers'."
data = dict(
    imagenet='ImageNet-1k, train/<class>/ and val/<class>/', coco='COCO 2017, annotations/, train2017/, val2017/'
)
seen = 36 * 117_266
cells = [
    dict(
        task='pretrain',
        arch='convnext_base',
        methods=['spark'],
        data='imagenet',
        images=1600 * 1_281_167,
        recipe='pretrain/configs/spark_convnext-base_1600e.py',
    ),
    dict(
        task='pretrain',
        arch='vit_base',
        methods=['mae'],
        data='imagenet',
        images=1600 * 1_281_167,
        gmacs=9.3,
        recipe='pretrain/configs/mae_vit-base_1600e.py',
    ),
    dict(
        task='pretrain',
        arch='swin_base',
        methods=['simmim'],
        data='imagenet',
        images=800 * 1_281_167,
        gmacs=11.3,
        recipe='pretrain/configs/simmim_swin-base_800e.py',
    ),
    dict(
        task='classification',
        arch='convnext_base',
        methods=['spark'],
        data='imagenet',
        images=400 * 1_281_167,
        recipe='pretrain/configs/finetune_convnext-base_400e.py',
    ),
    dict(
        task='classification',
        arch='vit_base',
        methods=['mae'],
        data='imagenet',
        images=100 * 1_281_167,
        recipe='pretrain/configs/finetune_vit-base_100e.py',
    ),
    dict(
        task='classification',
        arch='swin_base',
        methods=['simmim'],
        data='imagenet',
        images=100 * 1_281_167,
        recipe='pretrain/configs/finetune_swin-base_100e.py',
    ),
    dict(
        task='detection',
        arch='convnext_base',
        methods=['spark'],
        data='coco',
        images=seen,
        gmacs=494.0,
        recipe='mmdet_configs/spark/mask-rcnn_convnext-base_fpn_3x_coco.py',
    ),
    dict(
        task='detection',
        arch='convnext_base',
        methods=['supervised'],
        start='recipe',
        data='coco',
        images=seen,
        gmacs=494.0,
        recipe='mmdet_configs/baselines/mask-rcnn_convnext-base-supervised_fpn_3x_coco.py',
    ),
    dict(
        task='detection',
        arch='swin_base',
        methods=['supervised'],
        start='recipe',
        data='coco',
        images=seen,
        gmacs=494.0,
        recipe='mmdet_configs/baselines/mask-rcnn_swin-base_fpn_3x_coco.py',
    ),
    dict(
        task='detection',
        arch='swin_base',
        methods=['simmim'],
        data='coco',
        images=seen,
        gmacs=494.0,
        recipe='mmdet_configs/baselines/mask-rcnn_swin-base-simmim_fpn_3x_coco.py',
    ),
    dict(
        task='detection_vitdet',
        arch='vit_base',
        methods=['mae'],
        data='coco',
        images=100 * 118_000,
        gmacs=540.0,
        recipe='mmdet_configs/baselines/mask-rcnn_vit-base-mae_fpn_100e_coco.py',
    ),
]
tables = [
    dict(
        name='transformers',
        baseline='supervised',
        archs=['swin_base', 'vit_base', 'convnext_base'],
        title='Against transformers and their pretraining: ImageNet top-1; Mask R-CNN on COCO, 3x (ViT-B: 100 epochs)',
        methods=['supervised', 'moco_v3', 'beit', 'simmim', 'mae', 'spark'],
        best_of='table',
        pairs=[
            ('swin_base', 'supervised'),
            ('swin_base', 'simmim'),
            ('vit_base', 'mae'),
            ('convnext_base', 'supervised'),
            ('convnext_base', 'spark'),
        ],
        columns=[
            ('classification', 'top1', 'top-1'),
            ('detection', 'box_ap', 'box AP'),
            ('detection', 'mask_ap', 'mask AP'),
        ],
    ),
    dict(
        name='transformers_vitdet',
        baseline='supervised',
        archs=['vit_base'],
        methods=['mae'],
        title="MAE with ViTDet's recipe: ViT-B, Mask R-CNN on COCO, 100 epochs",
        columns=[('detection_vitdet', 'box_ap', 'box AP'), ('detection_vitdet', 'mask_ap', 'mask AP')],
    ),
]
del seen
