"""The ablation table on small public data, three seeds: CIFAR-10 with a tenth of its labels, and nuclei (BBBC038).

One GPU, or a night on a CPU. Pretraining on CIFAR-10's images serves classification, on the nuclei's detection.
"""

title = 'Small public data: CIFAR-10 with 10 % of the labels, nuclei'
note = 'Small networks and images: it compares methods within this table only.'
data = dict(
    cifar10='CIFAR-10 as images, train/<class>/ and test/<class>/: spark-bench data cifar10',
    nuclei='BBBC038 in COCO layout: spark-bench data nuclei')
methods = ['scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic']
arch, seeds, one = 'test_resnet', [0, 1, 2], dict(threads=1)
# Weights: seconds on one CPU core.
cells = [
    dict(task='pretrain', arch=arch, methods=methods[1:], data='cifar10', options=one, weight=2000,
         recipe='pretrain/configs/cifar10_pretrain.py'),
    dict(task='pretrain_nuclei', arch=arch, methods=methods[1:], data='nuclei', options=one, weight=900,
         recipe='pretrain/configs/cifar10_pretrain.py',
         overrides={'train_cfg.max_epochs': 100, 'param_scheduler.0.warmup': 5, 'global_batch': 16,
                    'base_lr': 0.12}),
    dict(task='classification', arch=arch, methods=methods, seeds=seeds, data='cifar10', weight=450,
         recipe='pretrain/configs/cifar10_finetune.py', options=dict(label_fraction=0.1, **one)),
    dict(task='detection', arch=arch, methods=methods, seeds=seeds, data='nuclei', start='pretrain_nuclei',
         options=one, weight=350, recipe='mmdet_configs/mini/mask-rcnn_mini.py'),
]
tables = [dict(name='mini', title=title, baseline='scratch', methods=methods,
               columns=[('classification', 'top1', 'top-1'), ('detection', 'box_ap', 'box AP'),
                        ('detection', 'mask_ap', 'mask AP')])]
del methods, arch, seeds, one
