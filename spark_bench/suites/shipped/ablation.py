"""What SparK loses without its parts: the paper's ablation table, ConvNeXt-S fine-tuned on ImageNet.

The row without pretraining is published only: its recipe, of 300 epochs, is ConvNeXt's own.
"""

title = 'Ablation: ConvNeXt-S, ImageNet top-1'
note = 'The row without pretraining is a published one.'
data = dict(imagenet='ImageNet-1k, train/<class>/ and val/<class>/')
methods = ['spark', 'no_sparse', 'black_mosaic', 'no_hierarchy', 'ape', 'loss_on_all', 'half_schedule']
cells = [
    dict(
        task='pretrain',
        arch='convnext_small',
        methods=methods,
        data='imagenet',
        recipe='pretrain/configs/spark_convnext-small_1600e.py',
        images=1600 * 1_281_167,
    ),
    dict(
        task='classification',
        arch='convnext_small',
        methods=methods,
        data='imagenet',
        recipe='pretrain/configs/finetune_convnext-small_400e.py',
        images=400 * 1_281_167,
    ),
]
# The paper's rows in its order, and `no_sparse`, which it does not have, beside the row that it resembles.
tables = [
    dict(
        name='ablation',
        title='What each part of SparK is worth: ConvNeXt-S, ImageNet top-1',
        archs=['convnext_small'],
        methods=[
            'scratch',
            'spark',
            'black_mosaic',
            'no_sparse',
            'no_hierarchy',
            'ape',
            'loss_on_all',
            'half_schedule',
        ],
        columns=[('classification', 'top1', 'top-1')],
    )
]
del methods
