"""Pretraining on CIFAR-10's images; transfer to CIFAR-10 with few labels and to nuclei (BBBC038), three seeds.

Two tables: SparK's ablation, and SparK beside other methods, each with a small network of its own. All pretrainings see
the same number of images. One GPU, or a night on a CPU.
"""

title = 'Small public data: CIFAR-10 with 10 % of the labels, nuclei'
note = 'Small networks and images: it compares methods within this table only.'
data = dict(
    cifar10='CIFAR-10 as images, train/<class>/ and test/<class>/: spark-bench data cifar10',
    nuclei='BBBC038 in COCO layout: spark-bench data nuclei',
)
methods = ['scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic']
arch, seeds = 'test_resnet', [0, 1, 2]
convnet, transformer = dict(threads=1, amp=True, channels_last=True), dict(threads=1, amp=True)
# From network to the methods that have its row, options of its trainings, and its detector.
rows = {
    'test_resnet': ([*methods, 'moco_v2', 'supervised'], convnet, 'mmdet_configs/mini/mask-rcnn_mini.py'),
    'vit_mini': (['scratch', 'mae'], transformer, 'mmdet_configs/mini/mask-rcnn_vit-mini.py'),
    'swin_mini': (['scratch', 'simmim'], transformer, 'mmdet_configs/mini/mask-rcnn_swin-mini.py'),
}
views = {'train_cfg.max_epochs': 2}
# Weights: seconds on one CPU core.
cells = [
    dict(
        task='pretrain',
        arch=arch,
        methods=methods[1:],
        data='cifar10',
        options=convnet,
        weight=800,
        recipe='pretrain/configs/cifar10_pretrain.py',
        overrides=views,
    )
]
for name, method, options, weight in (
    ('test_resnet', 'moco_v2', convnet, 600),
    ('test_resnet', 'supervised', convnet, 300),
    ('vit_mini', 'mae', transformer, 420),
    ('swin_mini', 'simmim', transformer, 950),
):
    cells.append(
        dict(
            task='pretrain',
            arch=name,
            methods=[method],
            data='cifar10',
            options=options,
            weight=weight,
            recipe=f'pretrain/configs/small_{method}.py',
            overrides=views,
        )
    )
cells.append(
    dict(
        task='classification',
        arch=arch,
        methods=methods,
        seeds=seeds,
        data='cifar10',
        weight=200,
        recipe='pretrain/configs/cifar10_finetune.py',
        options=dict(label_fraction=0.1, **convnet),
    )
)
for name, (trained, options, recipe) in rows.items():
    shared = dict(arch=name, methods=trained, seeds=seeds, data='nuclei', recipe=recipe)
    cells += [
        dict(task='detection', options=options, overrides={'train_cfg.max_epochs': 2}, weight=180, **shared),
        # A tenth of the images, three fifths of the updates.
        dict(
            task='detection_tenth',
            options=dict(label_fraction=0.1, **options),
            overrides={'train_cfg.max_epochs': 12},
            weight=120,
            **shared,
        ),
    ]
detection = [
    ('detection_tenth', 'box_ap', 'box AP, 10 %'),
    ('detection_tenth', 'mask_ap', 'mask AP, 10 %'),
    ('detection', 'box_ap', 'box AP'),
    ('detection', 'mask_ap', 'mask AP'),
]
tables = [
    dict(
        name='mini',
        title=title,
        baseline='scratch',
        methods=methods,
        archs=[arch],
        columns=[('classification', 'top1', 'top-1'), *detection],
    ),
    dict(
        name='mini_methods',
        title='Small networks, pretrained on the same number of CIFAR-10 images: nuclei',
        baseline='scratch',
        archs=list(rows),
        best_of='table',
        columns=detection,
        pairs=[
            (name, method) for name, (trained, _, _) in rows.items() for method in trained if method not in methods[2:]
        ],
    ),
]
del methods, arch, seeds, convnet, transformer, rows, views, name, method, options, weight, trained, recipe, shared
del detection
