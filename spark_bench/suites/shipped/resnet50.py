"""SparK against contrastive pretraining: Mask R-CNN with ResNet-50 on COCO, 1x and 2x.

Multiply-adds an image in pretraining (10^9): MoCo v2 trains on one view and looks at the other, BYOL trains on two and
looks at both; a look is a third of a training. Rows of other contrastive methods are published ones.
"""

title = 'ResNet-50 on COCO: SparK against contrastive pretraining'
note = 'Rows of SimCLR, SimSiam, SwAV and InfoMin are published ones.'
data = dict(
    imagenet='ImageNet-1k, train/<class>/ and val/<class>/', coco='COCO 2017, annotations/, train2017/, val2017/'
)
cells = [
    dict(
        task='pretrain',
        arch='resnet50',
        methods=['spark'],
        data='imagenet',
        images=1600 * 1_281_167,
        recipe='pretrain/configs/spark_resnet50_1600e.py',
    ),
    dict(
        task='pretrain',
        arch='resnet50',
        methods=['moco_v2'],
        data='imagenet',
        images=800 * 1_281_167,
        gmacs=5.5,
        recipe='pretrain/configs/moco_v2_resnet50_800e.py',
    ),
    dict(
        task='pretrain',
        arch='resnet50',
        methods=['byol'],
        data='imagenet',
        images=1000 * 1_281_167,
        gmacs=10.9,
        recipe='pretrain/configs/byol_resnet50_1000e.py',
    ),
    dict(
        task='pretrain',
        arch='resnet50',
        methods=['supervised'],
        data='imagenet',
        images=90 * 1_281_167,
        gmacs=4.1,
        recipe='pretrain/configs/supervised_resnet50_90e.py',
    ),
]
for schedule, updates in (('1x', 90_000), ('2x', 180_000)):
    shared = dict(task=f'detection_{schedule}', arch='resnet50', data='coco', images=16 * updates, gmacs=260.0)
    cells += [
        dict(methods=['spark'], recipe=f'mmdet_configs/spark/mask-rcnn_resnet50_fpn_{schedule}_coco.py', **shared),
        # All but SparK's by the recipe of the supervised row, which is SparK's from other weights.
        dict(
            methods=['supervised', 'moco_v2', *(['byol'] if schedule == '1x' else [])],
            **shared,
            recipe=f'mmdet_configs/baselines/mask-rcnn_resnet50-supervised_fpn_{schedule}_coco.py',
        ),
        dict(
            methods=['scratch'],
            **shared,
            recipe=f'mmdet_configs/baselines/mask-rcnn_resnet50-scratch_fpn_{schedule}_coco.py',
        ),
    ]
tables = [
    dict(
        name='resnet50',
        baseline='supervised',
        archs=['resnet50'],
        title='Against contrastive pretraining: ResNet-50, Mask R-CNN on COCO, 1x and 2x',
        methods=['scratch', 'supervised', 'simclr', 'moco_v2', 'simsiam', 'swav', 'byol', 'infomin', 'spark'],
        columns=[
            ('detection_1x', 'box_ap', 'box AP, 1x'),
            ('detection_1x', 'mask_ap', 'mask AP, 1x'),
            ('detection_2x', 'box_ap', 'box AP, 2x'),
            ('detection_2x', 'mask_ap', 'mask AP, 2x'),
        ],
    )
]
del schedule, updates, shared
