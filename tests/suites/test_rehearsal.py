"""What a cell would refuse itself is told before the first one runs, and in the plan."""

import pytest

from spark_bench import commands
from spark_bench.suites import command
from spark_bench.suites.definition import load_suite
from spark_bench.suites.rehearsal import check_cells

SUITE = """
data = dict(classes='classes', coco='boxes')
cells = [
    dict(task='pretrain', arch='test_resnet', methods=['spark'], data='classes', options=dict(),
         recipe='pretrain/configs/demo_pretrain.py'),
    dict(task='classification', arch='test_resnet', methods=['scratch', 'spark'], seeds=[0, 1], data='classes',
         recipe='pretrain/configs/demo_finetune.py', overrides={'global_batch': 8}),
    dict(task='detection', arch='test_resnet', methods=['scratch', 'spark'], data='coco',
         recipe='mmdet_configs/demo/mask-rcnn_demo.py', overrides={'train_cfg.max_epochs': 1}, ),
]
tables = [dict(name='t', title='T', columns=[('detection', 'box_ap', 'box AP')])]
"""
EPOCHS, BATCH = "{'train_cfg.max_epochs': 1}", "{'global_batch': 8}"
FAULTS = [
    (EPOCHS, "{'train_cfg.max_epoch': 1}", r"'max_epoch'; did you mean train_cfg.max_epochs?"),
    (EPOCHS, "{'optim_wrapper.optimizer.weigth_decay': 1}", 'did you mean optim_wrapper.optimizer.weight_decay?'),
    (EPOCHS, "{'train_dataloader.batchsize': 1}", 'did you mean train_dataloader.batch_size?'),
    (EPOCHS, "{'model.test_cfg.rcnn.score_threshhold': 1, 'model.test_cfg.rcnn.score_th': 0.1}", 'score_thr?'),
    (EPOCHS, "{'train_cfg.max_epochs': 'two'}", 'train_cfg.max_epochs'),
    (EPOCHS, "{'trian_cfg.max_epochs': 2}", 'trian_cfg'),
    (EPOCHS, "{'launcher': 'none'}", 'launcher'),
    (BATCH, "{'global_batch': 8, 'model.label_smooting': 0.1}", 'did you mean model.label_smoothing?'),
    (BATCH, "{'global_batch': 'many'}", 'global_batch'),
    (BATCH, "{'train_cfg.max_updates': 3}", 'max_epochs'),
    ('options=dict()', 'options=dict(batch_size=7)', '--batch-size 7'),
    (
        "arch='test_resnet', methods=['scratch', 'spark'], data='coco'",
        "arch='resnet5O', methods=['scratch'], data='coco'",
        'resnet50',
    ),
    (
        "arch='test_resnet', methods=['spark']",
        "arch=['test_resnet', 'vit_tiny_patch16_224'], methods=['spark']",
        'vit_tiny',
    ),
    ("'mmdet_configs/demo/mask-rcnn_demo.py'", "'pretrain/configs/demo_finetune.py'", 'demo_finetune.py'),
]


@pytest.mark.parametrize('before, after, named', FAULTS)
def test_a_cell_that_would_refuse_is_named_before_anything_runs(tmp_path, capsys, monkeypatch, before, after, named):
    monkeypatch.setattr(command, 'build_cells', lambda *args: pytest.fail('something was about to run'))
    path = tmp_path / 'mine.py'
    path.write_text(SUITE.replace(before, after, 1))
    assert path.read_text() != SUITE
    places = [
        '--data-root',
        f'classes={tmp_path}',
        f'coco={tmp_path}',
        '--work-dir',
        str(tmp_path / 'w'),
        '--results',
        str(tmp_path / 'r'),
    ]
    for words in ([], ['--dry-run']):
        assert commands.main(['run', str(path), *places, *words]) == 2
        out, error = capsys.readouterr()
        assert error.count('\n') == 1 and named in error and 'suite mine: ' in error and out == '', error
        assert '--cfg-options' not in error
    assert not (tmp_path / 'w').exists() and not (tmp_path / 'r').exists()


@pytest.mark.parametrize(
    'overrides',
    [
        {'optim_wrapper.clip_grad': {'max_norm': 1.0}, 'optim_wrapper.paramwise_cfg': {'norm_decay_mult': 0.0}},
        {'train_dataloader.prefetch_factor': 4, 'train_dataloader.num_workers': 1},
        {'model.test_cfg.rcnn.mask_thr_binary': 0.4, 'model.backbone.drop_path_rate': 0.1},
        {'train_cfg.dynamic_intervals': [[1, 1]], 'default_hooks.logger.interval': 5},
    ],
)
def test_what_is_taken_is_no_slip(tmp_path, overrides):
    path = tmp_path / 'mine.py'
    path.write_text(SUITE.replace(EPOCHS, repr(overrides), 1))
    suite = load_suite(str(path))
    check_cells(suite, suite.cells)


@pytest.mark.parametrize(
    'column, named',
    [
        ("('detection', 'box_map', 'AP')", 'did you mean box_ap?'),
        ("('detection', 'top1', 'AP')", 'box_ap'),
        ("('classification', 'box_ap', 'AP')", 'top1'),
        ("('detector', 'box_ap', 'AP')", "task 'detector'"),
        ("('classification_384', 'top-1', 'AP')", 'did you mean top1?'),
    ],
)
def test_a_column_that_no_record_can_fill_is_refused(tmp_path, capsys, column, named):
    path = tmp_path / 'mine.py'
    path.write_text(SUITE.replace("('detection', 'box_ap', 'box AP')", column))
    assert commands.main(['run', str(path), '--dry-run']) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'mine.py, tables[0]' in error and named in error, error
