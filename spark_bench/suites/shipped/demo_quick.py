"""The demo's road with a few steps of everything, too few to learn: about a minute."""

title = 'The road of the demo in a minute'
note = 'Too few steps to learn anything.'
beside = 'mini'
methods = ['scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic']
short = {'train_cfg.max_epochs': 2}
cells = [
    dict(
        task='pretrain',
        arch='test_resnet',
        methods=methods[1:],
        recipe='pretrain/configs/demo_pretrain.py',
        data='embedded-quick:unlabelled',
        options=dict(threads=1),
        overrides=short,
        weight=6.0,
    ),
    dict(
        task='detection',
        arch='test_resnet',
        methods=methods,
        recipe='mmdet_configs/demo/mask-rcnn_demo.py',
        data='embedded-quick:detection',
        options=dict(threads=1),
        overrides=short,
        weight=12.0,
    ),
    dict(
        task='classification',
        arch='test_resnet',
        methods=methods,
        recipe='pretrain/configs/demo_finetune.py',
        data='embedded-quick:classification',
        options=dict(threads=1),
        overrides=short,
        weight=3.0,
    ),
]
tables = [
    dict(
        name='demo-quick',
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
del methods, short
