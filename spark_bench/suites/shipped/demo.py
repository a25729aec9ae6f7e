"""The ablation table at the scale of a laptop, on the embedded data set: minutes on two CPU cores."""

title = 'The ablation table at the scale of a laptop'
note = 'A small network, generated images, one seed: it shows the road, not the result of the paper.'
beside = 'mini'
methods = ['scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic']
arch = 'test_resnet'
# Weights: seconds on one core of 2023, for estimates alone.
cells = [
    dict(
        task='pretrain',
        arch=arch,
        methods=methods[1:],
        recipe='pretrain/configs/demo_pretrain.py',
        data='embedded:unlabelled',
        options=dict(threads=1),
        weight=55.0,
    ),
    dict(
        task='detection',
        arch=arch,
        methods=methods,
        recipe='mmdet_configs/demo/mask-rcnn_demo.py',
        data='embedded:detection',
        options=dict(threads=1),
        weight=95.0,
    ),
    dict(
        task='classification',
        arch=arch,
        methods=methods,
        recipe='pretrain/configs/demo_finetune.py',
        data='embedded:classification',
        options=dict(threads=1),
        weight=25.0,
    ),
]
tables = [
    dict(
        name='demo',
        title=title,
        baseline='scratch',
        methods=methods,
        columns=[
            ('classification', 'top1', 'top-1'),
            ('detection', 'box_ap', 'box AP'),
            ('detection', 'mask_ap', 'mask AP'),
        ],
    )
]
del methods, arch
