"""Recipes that people write themselves: what would make a figure another than its record says is refused or told."""

import logging

import pytest
import torch
from mmengine.config import Config
from small_finetuning import words, write_images
from torch import nn

from spark_bench import commands
from spark_bench.errors import InputError
from spark_bench.places import shipped
from spark_bench.runs.detect import Detection
from spark_bench.runs.finetune import Finetuning
from spark_bench.runs.options import DetectOptions, FinetuneOptions, PretrainOptions
from spark_bench.runs.overrides import set_length
from spark_bench.runs.pretrain import Pretraining
from spark_bench.runs.soundness import tell_long_warm_up
from spark_bench.training.precise_norm import PreciseBatchNormHook

KINDS = {
    'pretrain': (Pretraining, PretrainOptions, 'pretrain/configs/demo_pretrain.py'),
    'finetune': (Finetuning, FinetuneOptions, 'pretrain/configs/demo_finetune.py'),
    'detect': (Detection, DetectOptions, 'mmdet_configs/demo/mask-rcnn_demo.py'),
}


def recipe_of(kind, folder, text='', **options):
    """What a run of a config over the demo's says of itself."""
    run, of_run, base = KINDS[kind]
    path = folder / 'own.py'
    path.write_text(f'_base_ = {str(shipped(base))!r}\n{text}\n')
    return run.check_recipe(of_run(config=str(path), **options))


@pytest.mark.parametrize(
    'kind, text, named',
    [
        ('detect', 'test_dataloader = dict(dataset=dict(indices=2))', 'test_dataloader.dataset.indices'),
        ('detect', 'train_dataloader = dict(dataset=dict(indices=2))', 'give --label-fraction'),
        ('detect', 'test_dataloader = dict(dataset=dict(fraction=0.5))', 'test_dataloader.dataset.fraction'),
        ('detect', 'test_dataloader = dict(drop_last=True)', 'test_dataloader.drop_last'),
        ('finetune', "evaluation_dataloader = dict(dataset=dict(split='train'))", "is 'train': it is 'val'"),
        ('finetune', "train_dataloader = dict(dataset=dict(split='val'))", "is 'val': it is 'train'"),
        ('finetune', 'evaluation_dataloader = dict(drop_last=True)', 'evaluation_dataloader.drop_last'),
        ('finetune', 'custom_hooks = []', 'has no AccuracyHook'),
        ('finetune', "default_hooks = dict(checkpoint=dict(_delete_=True, type='CheckpointHook'))", 'ResumePointHook'),
        ('pretrain', "default_hooks = dict(checkpoint=dict(_delete_=True, type='CheckpointHook'))", 'ResumePointHook'),
        ('finetune', "custom_hooks = [dict(type='AccuracyHook'), dict(type='EMAHook')]", 'the hook EMAHook.*WeightEma'),
        ('detect', "custom_hooks = [dict(type='mmengine.EMAHook')]", 'own.py has the hook EMAHook'),
    ],
)
def test_what_would_measure_or_keep_something_else_is_refused(kind, text, named, tmp_path):
    recipe_of(kind, tmp_path)
    with pytest.raises(InputError, match=named):
        recipe_of(kind, tmp_path, text)


def test_a_schedule_that_does_not_end_with_its_training_is_told(tmp_path, capsys):
    recipe_of('finetune', tmp_path)
    recipe_of('finetune', tmp_path, overrides={'train_cfg.max_epochs': 2})
    assert 'schedules' not in ''.join(capsys.readouterr())
    recipe_of('finetune', tmp_path, 'train_cfg = dict(max_epochs=2)')
    assert 'the schedules of the recipe end at 4 epochs, its training at 2' in ''.join(capsys.readouterr())


def schedules(*schedules, length, before=12):
    cfg = Config(dict(train_cfg=dict(max_epochs=before), param_scheduler=[dict(each) for each in schedules]))
    set_length(cfg, length)
    return cfg.param_scheduler


def test_all_of_a_schedule_is_shortened_with_the_training(capsys):
    [flat] = schedules(dict(type='CosineAnnealingLR', begin=6, end=12, T_max=6), length=4)
    assert (flat.begin, flat.end, flat.T_max) == (2, 4, 2)
    [cycle] = schedules(dict(type='OneCycleLR', total_steps=12, end=12), length=4)
    assert cycle.total_steps == 4
    # A warm-up keeps its length, and what follows it begins there.
    warm, rest = schedules(
        dict(type='LinearLR', begin=0, end=3), dict(type='CosineAnnealingLR', begin=3, end=12, T_max=9), length=6
    )
    assert (warm.end, rest.begin, rest.end, rest.T_max) == (3, 3, 6, 3)
    [warm] = schedules(dict(type='LinearLR', end=3), dict(type='CosineAnnealingLR', begin=3, end=12), length=2)
    assert 'ends before CosineAnnealingLR begins, behind 3: it is left out' in ''.join(capsys.readouterr())


def test_half_a_schedule_is_half_or_refused_in_either_unit(tmp_path):
    for epochs in (1, 3):
        with pytest.raises(InputError, match=f'half_schedule trains for 0.5 .* no whole number of its {epochs} epochs'):
            recipe_of('pretrain', tmp_path, method='half_schedule', overrides={'train_cfg.max_epochs': epochs})
    updates = "train_cfg = dict(_delete_=True, type='PretrainLoop', max_updates=8)"
    for method, length in (('spark', 8), ('half_schedule', 4)):
        recipe = recipe_of('pretrain', tmp_path, updates, method=method)
        assert recipe['train_cfg']['max_updates'] == length


def test_a_warm_up_in_updates_that_takes_the_whole_training_is_told(capsys):
    cfg = Config(dict(param_scheduler=[dict(type='LinearLR', by_epoch=False, end=50)]))
    tell_long_warm_up(cfg, 51)
    assert 'still rising' not in ''.join(capsys.readouterr())
    tell_long_warm_up(cfg, 50)
    assert 'still rising when the training of 50 updates ends' in ''.join(capsys.readouterr())


def test_two_learning_rates_are_refused(tmp_path):
    with pytest.raises(InputError, match='two learning rates'):
        recipe_of('finetune', tmp_path, overrides={'base_lr': 1.0, 'optim_wrapper.optimizer.lr': 1e-3})


@pytest.mark.parametrize('updates', [0, -1, 2.5])
def test_precise_statistics_of_no_batch_are_refused(updates):
    with pytest.raises(InputError, match='whole number from 1 up'):
        PreciseBatchNormHook(updates)


def test_a_norm_that_no_batch_reaches_keeps_its_statistics():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
            self.spare.running_mean.fill_(7.0)
            self.data_preprocessor = lambda batch, training: {'x': batch}

        def forward(self, x, mode):
            return self.used(x)

    class Loader(list):
        class sampler:
            set_epoch = staticmethod(lambda epoch: None)

    class Runner:
        model, max_epochs, logger = Model(), 1, logging.getLogger('test')
        train_dataloader = Loader([[torch.arange(6.0).view(3, 2)]])

    PreciseBatchNormHook(1).after_train(Runner())
    assert Runner.model.used.running_mean.tolist() == [2, 3] and Runner.model.spare.running_mean.tolist() == [7, 7]


def test_an_average_that_is_mostly_the_start_is_told(tmp_path, capsys):
    images = write_images(tmp_path / 'images')
    ema = "custom_hooks=[dict(type='WeightEmaHook',decay={}),dict(type='AccuracyHook')]"
    for decay, told in ((0.9999, True), (0.1, False)):
        folder = tmp_path / str(decay)
        folder.mkdir()
        (folder / 'own.py').write_text(
            f'_base_ = {str(shipped(KINDS["finetune"][2]))!r}\n{ema.format(decay).replace("=[", " = [")}\n'
        )
        command, *rest = words(images, folder, '--weights', 'scratch', '--epochs', '1', settings=['global_batch=8'])
        assert commands.main([command, str(folder / 'own.py'), *rest]) == 0
        assert ('the EMA of decay 0.9999 still is to' in ''.join(capsys.readouterr())) == told
