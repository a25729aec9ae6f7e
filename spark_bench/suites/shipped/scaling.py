"""Gains at every model size: SparK against supervised pretraining, ImageNet top-1, box and mask AP.

Multiply-adds an image (10^9) of Mask R-CNN on 1280 × 800 pixels: about 180 and 20.4 × the network's at 224. Supervised
top-1 is published only.
"""

title = 'Scaling: ResNet-50 to -200 and ConvNeXt-S to -L'
note = 'Supervised top-1 is published only.'
data = dict(
    imagenet='ImageNet-1k, train/<class>/ and val/<class>/', coco='COCO 2017, annotations/, train2017/, val2017/'
)
# 10^9 multiply-adds of each network at 224 pixels, and its epochs of fine-tuning.
networks = dict(
    resnet50=(4.1, 300),
    resnet101=(7.8, 300),
    resnet152=(11.5, 300),
    resnet200=(15.0, 300),
    convnext_small=(8.7, 400),
    convnext_base=(15.4, 400),
    convnext_large=(34.4, 200),
)
cells = []
for arch, (gmacs, epochs) in networks.items():
    name, is_resnet = arch.replace('_', '-'), arch.startswith('resnet')
    schedule = '1x' if is_resnet else '3x'
    seen = 16 * 90_000 if is_resnet else 36 * 117_266
    cells += [
        dict(
            task='pretrain',
            arch=arch,
            methods=['spark'],
            data='imagenet',
            images=1600 * 1_281_167,
            recipe=f'pretrain/configs/spark_{name}_1600e.py',
        ),
        dict(
            task='classification',
            arch=arch,
            methods=['spark'],
            data='imagenet',
            images=epochs * 1_281_167,
            recipe=f'pretrain/configs/finetune_{name}_{epochs}e.py',
        ),
        dict(
            task='detection',
            arch=arch,
            methods=['spark'],
            data='coco',
            images=seen,
            gmacs=180 + 20.4 * gmacs,
            recipe=f'mmdet_configs/spark/mask-rcnn_{name}_fpn_{schedule}_coco.py',
        ),
        dict(
            task='detection',
            arch=arch,
            methods=['supervised'],
            data='coco',
            start='recipe',
            images=seen,
            gmacs=180 + 20.4 * gmacs,
            recipe=f'mmdet_configs/baselines/mask-rcnn_{name}-supervised_fpn_{schedule}_coco.py',
        ),
    ]
cells += [
    dict(
        task='pretrain_384',
        arch='convnext_large',
        methods=['spark'],
        data='imagenet',
        images=1600 * 1_281_167,
        gmacs=137.0,
        recipe='pretrain/configs/spark_convnext-large_384_1600e.py',
    ),
    dict(
        task='classification_384',
        arch='convnext_large',
        methods=['spark'],
        data='imagenet',
        start='pretrain_384',
        images=200 * 1_281_167,
        gmacs=101.0,
        recipe='pretrain/configs/finetune_convnext-large_384_200e.py',
    ),
]
tables = [
    dict(
        name='scaling',
        baseline='supervised',
        methods=['supervised', 'spark'],
        archs=list(networks),
        title='Gains over supervised training by size: ImageNet top-1; Mask R-CNN on COCO, ResNets 1x, ConvNeXts 3x',
        columns=[
            ('classification', 'top1', 'top-1'),
            ('detection', 'box_ap', 'box AP'),
            ('detection', 'mask_ap', 'mask AP'),
        ],
    ),
    dict(
        name='scaling_384',
        baseline='supervised',
        methods=['supervised', 'spark'],
        archs=['convnext_large'],
        title='ConvNeXt-L at 384 px: ImageNet top-1',
        columns=[('classification_384', 'top1', 'top-1, 384 px')],
    ),
]
del networks, arch, gmacs, epochs, name, is_resnet, schedule, seen
