"""Values changed with --cfg-options: taken as they are meant, or refused by key; never silently without effect."""

import pytest
from mmengine.config import Config

from spark_bench import registration  # noqa: F401
from spark_bench.commands import parsing
from spark_bench.errors import InputError
from spark_bench.places import shipped
from spark_bench.runs import kind_of
from spark_bench.runs.inputs import load_config
from spark_bench.runs.overrides import apply_overrides, set_length
from spark_bench.training.batches import fit_batch

UPDATES = 'mmdet_configs/spark/mask-rcnn_resnet50_fpn_1x_coco.py'
EPOCHS = 'mmdet_configs/spark/mask-rcnn_convnext-base_fpn_3x_coco.py'
DEMO = 'mmdet_configs/demo/mask-rcnn_demo.py'


def changed(recipe, **settings):
    cfg = Config.fromfile(shipped(recipe))
    apply_overrides(cfg, {key.replace('__', '.'): value for key, value in settings.items()})
    return cfg


@pytest.mark.parametrize(
    'key, value, named',
    [
        ('global_batsh', 8, "'global_batch'\\?"),
        ('epochs', 3, 'variable|no .epochs'),
        ('load_from', 'x.pth', '--weights'),
        ('resume', True, '--work-dir'),
        ('work_dir', 'x', '--work-dir'),
        ('randomness.seed', 1, '--seed'),
        ('model.backbone.weights', 'x.pth', '--weights'),
        ('optim_wrapper.accumulative_counts', 4, '--accumulate'),
        ('train_dataloader.dataset.data_root', 'x', '--data-root'),
        ('train_cfg.max_epochs', 12, 'train_cfg.max_updates'),
        ('train_cfg.max_updates', 'many', 'number'),
        ('train_cfg.max_updates', 0, 'from 1 up'),
        ('global_batch', 'eight', 'a number'),
        ('model', 7, 'group of settings'),
        ('model.backbone', 'x', 'group of'),
        ('param_scheduler.0', 3, 'group of settings'),
        ('param_scheduler.9.end', 3, "no '9'"),
        ('train_pipeline', [], 'variable'),
        ('optim_wrapper.autocast', 'maybe', 'true or false'),
        ('model.neck.in_channels', 3, 'a list'),
        ('train_cfg.more.deeper', 1, "no 'more'"),
        ('global_batch', True, 'number'),
    ],
)
def test_what_makes_no_sense_is_refused_by_key(key, value, named):
    with pytest.raises(InputError, match=named) as caught:
        changed(UPDATES, **{key.replace('.', '__'): value})
    assert '\n' not in str(caught.value) and key in str(caught.value)


@pytest.mark.parametrize(
    'key, meant',
    [
        ('model.test_cfg.rcnn.score_threshold', 'score_thr'),
        ('model.test_cfg.rcnn.max_per_image', 'max_per_img'),
        ('model.test_cfg.rcnn.nms.iou_thr', 'iou_threshold'),
        ('model.test_cfg.rpn.nms_pree', 'nms_pre'),
        ('model.train_cfg.rcnn.sampler.numm', 'num'),
        ('model.train_cfg.rcnn.assigner.pos_iou_threshold', 'pos_iou_thr'),
        ('model.backbone.frozen_stage', 'frozen_stages'),
        ('model.roi_head.bbox_head.reg_class_agnostc', 'reg_class_agnos'),
        ('train_cfg.max_update', 'max_updates'),
        ('optim_wrapper.optimizer.weight_decai', 'weight_decay'),
        ('optim_wrapper.clip_gradient', 'clip_grad'),
        ('param_scheduler.1.milestone', 'milestones'),
        ('train_dataloader.num_worker', 'num_workers'),
        ('train_dataloader.dataset.filter_cfg.min_sice', 'min_size'),
        ('train_dataloader.dataset.pipeline.2.keep_ratios', 'keep_ratio'),
        ('default_hooks.logger.intervall', 'interval'),
        ('env_cfg.cudnn_benchmarks', 'cudnn_benchmark'),
        ('model.test_cfg.rcnn.zzz', 'it has score_thr'),
    ],
)
def test_a_key_that_nothing_would_read_is_refused_with_the_one_that_is_meant(key, meant):
    with pytest.raises(InputError, match=f'{key}: .* takes no .*{meant}'):
        changed(UPDATES, **{key.replace('.', '__'): 1})
    # The same within a group of settings.
    group, _, last = key.rpartition('.')
    with pytest.raises(InputError, match=f'{key}: .* takes no .*{meant}'):
        changed(UPDATES, **{group.replace('.', '__'): {last: 1}})


@pytest.mark.parametrize(
    'key, value',
    [
        ('model.test_cfg.rcnn.nms.class_agnostic', True),
        ('model.test_cfg.rcnn.nms.max_num', 100),
        ('model.train_cfg.rcnn.sampler.neg_pos_ub', 3),
        ('model.backbone.with_cp', True),
        ('train_dataloader.pin_memory', True),
        ('model.rpn_head.anchor_generator.centers', [(0, 0)]),
        ('optim_wrapper.clip_grad', {'max_norm': 1.0}),
        ('optim_wrapper.optimizer.amsgrad', True),
        ('train_dataloader.dataset.pipeline.1.poly2mask', False),
        ('train_dataloader.dataset.indices', 5),
        ('model.test_cfg.rpn.min_bbox_size', 2),
        ('model.neck.norm_cfg.eps', 1e-3),
        ('default_hooks.more', {'type': 'IterTimerHook'}),
        ('env_cfg.mp_cfg', {'mp_start_method': 'fork'}),
        ('log_processor.num_digits', 3),
        ('model.roi_head.mask_head.loss_mask.loss_weight', 2.0),
        ('model.data_preprocessor.pad_size_divisor', 64),
        ('optim_wrapper.paramwise_cfg', {'bias_lr_mult': 2}),
    ],
)
def test_keys_that_are_read_though_the_config_does_not_state_them_are_taken(key, value):
    cfg = changed(UPDATES, **{key.replace('.', '__'): value})
    for part in key.split('.'):
        cfg = cfg[int(part)] if part.isdigit() else cfg[part]
    assert all(cfg[name] == one for name, one in value.items()) if isinstance(value, dict) else cfg == value


def test_updates_are_no_unit_of_a_recipe_in_epochs():
    with pytest.raises(InputError, match='give train_cfg.max_epochs'):
        changed(EPOCHS, train_cfg__max_updates=100)


@pytest.mark.parametrize('name', ['epochs', 'side', 'width'])
def test_a_variable_of_the_config_file_is_not_changed_in_vain(name):
    with pytest.raises(InputError, match=f'{name} is a variable'):
        changed(DEMO, **{name: 3})


def test_sensible_values_are_taken():
    cfg = changed(
        UPDATES,
        model__backbone__with_cp=True,
        model__backbone__frozen_stages=1,
        global_batch=8,
        optim_wrapper__optimizer__lr=1,
        param_scheduler__1__milestones=[5, 6],
        model__roi_head__bbox_head=dict(fc_out_channels=64),
        default_hooks__logger__interval=1,
    )
    assert cfg.model.backbone.with_cp is True and cfg.model.backbone.frozen_stages == 1 and cfg.global_batch == 8
    assert cfg.optim_wrapper.optimizer.lr == 1 and cfg.param_scheduler[1].milestones == [5, 6]
    assert cfg.model.roi_head.bbox_head.fc_out_channels == 64 and cfg.default_hooks.logger.interval == 1
    assert cfg.model.roi_head.bbox_head.type == 'Shared4Conv1FCBBoxHead'


@pytest.mark.parametrize(
    'recipe, unit, length, steps', [(UPDATES, 'max_updates', 900, [600, 800]), (EPOCHS, 'max_epochs', 12, [9, 11])]
)
def test_steps_move_with_the_end_of_the_training(recipe, unit, length, steps):
    cfg = changed(recipe, **{f'train_cfg__{unit}': length})
    assert cfg.train_cfg[unit] == cfg.param_scheduler[1].end == length
    assert cfg.param_scheduler[1].milestones == steps


def test_a_schedule_without_an_end_ends_with_the_training():
    cfg = Config(
        dict(
            train_cfg=dict(max_epochs=12),
            param_scheduler=[
                dict(type='LinearLR', by_epoch=False, begin=0, end=500),
                dict(type='MultiStepLR', milestones=[8, 11]),
            ],
        )
    )
    set_length(cfg, 24)
    assert cfg.param_scheduler[1] == dict(type='MultiStepLR', milestones=[16, 22], end=24)
    assert cfg.param_scheduler[0].end == 500


@pytest.mark.parametrize(
    'text, value',
    [
        ('a=true', True),
        ('a=False', False),
        ('a=3', 3),
        ('a=1e-4', 1e-4),
        ('a=[1,2]', [1, 2]),
        ('a=1,2', (1, 2)),
        ('a=None', None),
        ('a=SGD', 'SGD'),
        ('a=b=c', 'b=c'),
        ("a={'x': 1}", {'x': 1}),
        ('a=' + '(' * 500, '(' * 500),
    ],
)
def test_a_setting_is_read_as_python_or_else_as_text(text, value):
    assert parsing.setting(text) == ('a', value)


def test_the_newest_of_two_learning_rates_is_taken(tmp_path):
    """A rate that the config's own optimizer states would else stand, and what is given be of no effect."""
    path = tmp_path / 'own.py'
    path.write_text(f'_base_ = {str(shipped(EPOCHS))!r}\noptim_wrapper = dict(optimizer=dict(lr=0.01))\n')
    for overrides, expected in (({}, 0.01), ({'base_lr': 0.5, 'base_batch': 64}, 0.5 * 16 / 64)):
        cfg = load_config(str(path), overrides)
        fit_batch(cfg)
        assert cfg.global_batch == 16 and cfg.optim_wrapper.optimizer.lr == pytest.approx(expected)
    with pytest.raises(InputError, match='base_batch: it would be of no effect.*base_lr too'):
        load_config(str(path), {'base_batch': 64})


def test_a_rate_that_a_stock_config_scales_gives_way_to_one_that_is_stated(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(
        "_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']\n"
        "model = dict(backbone=dict(_delete_=True, type='SparKTimm', arch='resnet50'))\n"
        'global_batch, base_lr, base_batch = 32, 0.001, 16\n'
    )
    cfg = load_config(str(path), {})
    fit_batch(cfg)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.002)


@pytest.mark.parametrize('recipe', ['pretrain/configs/demo_finetune.py', 'pretrain/configs/demo_pretrain.py'])
@pytest.mark.parametrize('key', ['load_from', 'model.weights'])
def test_a_config_that_states_weights_is_refused(recipe, key, tmp_path):
    path = tmp_path / 'own.py'
    stated = "model = dict(weights='x.pth')" if key == 'model.weights' else "load_from = 'x.pth'"
    path.write_text(f'_base_ = {str(shipped(recipe))!r}\n{stated}\n')
    with pytest.raises(InputError, match=f'own.py has {key} x.pth: take it out, and give the file with --weights'):
        load_config(str(path), {})


@pytest.mark.parametrize(
    'kind, recipe, hook',
    [
        ('classification', 'pretrain/configs/demo_finetune.py', 'PreciseBatchNormHook'),
        ('detection', DEMO, 'WeightEmaHook'),
        ('detection', DEMO, 'AccuracyHook'),
        ('pretrain', 'pretrain/configs/small_supervised.py', 'AccuracyHook'),
        ('pretrain', 'pretrain/configs/demo_pretrain.py', 'WeightEmaHook'),
    ],
)
def test_a_hook_whose_work_would_be_in_no_figure_is_refused(kind, recipe, hook, tmp_path):
    cfg = Config.fromfile(shipped(recipe))
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type=hook)]
    cfg.dump(tmp_path / 'own.py')
    run = kind_of(kind)
    with pytest.raises(InputError, match=f'own.py has the hook {hook}, which is for other kinds of run'):
        run.check_recipe(run.Options(config=str(tmp_path / 'own.py'), arch='test_resnet'))


def test_a_pretraining_on_a_share_of_the_labels_is_refused(tmp_path):
    run = kind_of('pretrain')
    options = run.Options(
        config=str(shipped('pretrain/configs/small_supervised.py')),
        arch='test_resnet',
        overrides={'train_dataloader.dataset.fraction': 0.1},
    )
    with pytest.raises(InputError, match='train_dataloader.dataset.fraction: a pretraining takes all images'):
        run.check_recipe(options)
