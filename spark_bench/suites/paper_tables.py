"""The tables of the paper and of the demo, by suite."""

from spark_bench.records.table import Column, TableSpec

__all__ = ['TABLES']

TOP1 = Column('classification', 'top1', 'top-1')
TRANSFER = (TOP1, Column('detection', 'box_ap', 'box AP'), Column('detection', 'mask_ap', 'mask AP'))

ABLATION = TableSpec(
    name='ablation',
    title='What each part of SparK is worth: ConvNeXt-S, ImageNet top-1',
    columns=(TOP1,),
    # The paper's rows in its order, and `no_sparse`, which it does not have, beside the row that it resembles.
    methods=('scratch', 'spark', 'black_mosaic', 'no_sparse', 'no_hierarchy', 'ape', 'loss_on_all', 'half_schedule'),
    archs=('convnext_small',),
)
SCALING = TableSpec(
    name='scaling',
    title='Gains over supervised training by size: ImageNet top-1; Mask R-CNN on COCO, ResNets 1x, ConvNeXts 3x',
    columns=TRANSFER,
    methods=('supervised', 'spark'),
    archs=('resnet50', 'resnet101', 'resnet152', 'resnet200', 'convnext_small', 'convnext_base', 'convnext_large'),
    baseline='supervised',
)
SCALING_384 = TableSpec(
    name='scaling_384',
    title='ConvNeXt-L at 384 px: ImageNet top-1',
    columns=(Column('classification_384', 'top1', 'top-1, 384 px'),),
    methods=('supervised', 'spark'),
    archs=('convnext_large',),
    baseline='supervised',
)
RESNET50 = TableSpec(
    name='resnet50',
    title='Against contrastive pretraining: ResNet-50, Mask R-CNN on COCO, 1x and 2x',
    columns=tuple(
        Column(f'detection_{schedule}', metric, f'{label}, {schedule}')
        for schedule in ('1x', '2x')
        for metric, label in (('box_ap', 'box AP'), ('mask_ap', 'mask AP'))
    ),
    methods=('scratch', 'supervised', 'simclr', 'moco_v2', 'simsiam', 'swav', 'byol', 'infomin', 'spark'),
    archs=('resnet50',),
    baseline='supervised',
)
TRANSFORMERS = TableSpec(
    name='transformers',
    title='Against transformers and their pretraining: ImageNet top-1; Mask R-CNN on COCO, 3x (ViT-B: 100 epochs)',
    columns=TRANSFER,
    methods=('supervised', 'moco_v3', 'beit', 'simmim', 'mae', 'spark'),
    archs=('swin_base', 'vit_base', 'convnext_base'),
    baseline='supervised',
    pairs=(
        ('swin_base', 'supervised'),
        ('swin_base', 'simmim'),
        ('vit_base', 'mae'),
        ('convnext_base', 'supervised'),
        ('convnext_base', 'spark'),
    ),
    best_of='table',
)
TRANSFORMERS_VITDET = TableSpec(
    name='transformers_vitdet',
    title="MAE with ViTDet's recipe: ViT-B, Mask R-CNN on COCO, 100 epochs",
    columns=(
        Column('detection_vitdet', 'box_ap', 'box AP'),
        Column('detection_vitdet', 'mask_ap', 'mask AP'),
    ),
    methods=('mae',),
    archs=('vit_base',),
    baseline='supervised',
)
DEMO = TableSpec(name='demo', title='', columns=TRANSFER)

TABLES = {
    'ablation': (ABLATION,),
    'scaling': (SCALING, SCALING_384),
    'resnet50': (RESNET50,),
    'transformers': (TRANSFORMERS, TRANSFORMERS_VITDET),
    'demo': (DEMO,),
}
