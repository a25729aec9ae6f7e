"""What somebody states is what a run computes, however it is stated, and what its record says."""

import contextlib
import copy
import errno
import os
from types import SimpleNamespace

import pytest
import torch
from stock_recipes import stock

from spark_bench import commands
from spark_bench.checkpoints.writing import save_safetensors
from spark_bench.configs import read_config
from spark_bench.errors import InputError
from spark_bench.files import create_file
from spark_bench.models.methods import METHODS
from spark_bench.places import shipped
from spark_bench.runs import folders, kind_of
from spark_bench.runs.inputs import load_config, start_of
from spark_bench.runs.options import DetectOptions, FinetuneOptions
from spark_bench.runs.recipe import Identity
from spark_bench.suites.plan import fitting_processes
from spark_bench.suites.status import note_failure
from spark_bench.training import monitoring
from spark_bench.training.resume import clear_leftovers

UPDATES = str(shipped('mmdet_configs/spark/mask-rcnn_resnet50_fpn_1x_coco.py'))
EPOCHS = str(shipped('mmdet_configs/spark/mask-rcnn_convnext-base_fpn_3x_coco.py'))
SCRATCH = str(shipped('mmdet_configs/demo/mask-rcnn_demo.py'))


@pytest.mark.parametrize(
    'recipe, overrides, steps, end',
    [
        (UPDATES, {'train_cfg.max_updates': 180000, 'param_scheduler.1.milestones': [120000, 160000]}, None, 180000),
        (EPOCHS, {'param_scheduler.1.milestones': [8, 11], 'train_cfg.max_epochs': 12}, [8, 11], 12),
        (EPOCHS, {'train_cfg': dict(max_epochs=12)}, [9, 11], 12),
        (EPOCHS, {'train_cfg': dict(_delete_=True, type='UpdateLoop', max_epochs=12)}, [9, 11], 12),
    ],
)
def test_steps_that_are_stated_beside_a_length_are_those_of_that_length(recipe, overrides, steps, end):
    schedule = load_config(recipe, overrides).param_scheduler[1]
    assert (schedule.milestones, schedule.end) == (steps or overrides['param_scheduler.1.milestones'], end)


def test_schedules_that_are_stated_whole_end_with_the_training_and_are_not_stretched():
    stated = [dict(type='MultiStepLR', by_epoch=True, milestones=[10, 20], gamma=0.1)]
    cfg = load_config(EPOCHS, {'train_cfg.max_epochs': 30, 'param_scheduler': stated})
    assert [(one.milestones, one.end) for one in cfg.param_scheduler] == [([10, 20], 30)]
    assert 'end' not in stated[0]


def test_groups_are_judged_as_their_keys_are_and_two_values_for_one_are_refused():
    for overrides, told in (
        ({'train_cfg': dict(max_epochs=12)}, 'train_cfg.max_epochs: the config counts otherwise'),
        ({'train_cfg': dict(_delete_=True, type='UpdateLoop', max_epochs=12)}, 'the config counts otherwise'),
        ({'base_lr': 0.1, 'optim_wrapper': dict(optimizer=dict(lr=0.2))}, 'are two learning rates'),
        ({'train_cfg.max_updates': 7, 'train_cfg': dict(max_updates=8)}, 'train_cfg.max_updates is given twice, as 7'),
    ):
        with pytest.raises(InputError, match=told):
            load_config(UPDATES, overrides)
    assert (
        load_config(UPDATES, {'train_cfg': dict(max_updates=8), 'train_cfg.max_updates': 8}).train_cfg.max_updates == 8
    )


def test_a_key_that_is_given_twice_with_two_values_is_refused(capsys):
    words = ['detect', '--cfg-options', 'global_batch=8', '--cfg-options', 'global_batch=16']
    assert commands.main(words) == 2
    assert '--cfg-options global_batch is given twice, as 8 and 16' in capsys.readouterr().err
    assert (
        commands.main(
            [
                'detect',
                '--label-fraction',
                '0.1',
                '--label-seed',
                '1',
                '--cfg-options',
                'train_dataloader.dataset.fraction_seed=5',
            ]
        )
        == 2
    )
    assert '--label-seed and --cfg-options' in capsys.readouterr().err


def test_overrides_are_as_they_were_behind_a_check():
    overrides = {'optim_wrapper': dict(optimizer=dict(_delete_=True, type='SGD', lr=0.02, momentum=0.9))}
    before = copy.deepcopy(overrides)
    first, second = (load_config(EPOCHS, overrides).optim_wrapper.optimizer for _ in range(2))
    assert overrides == before and first == second == dict(type='SGD', lr=0.02, momentum=0.9)


PRETRAINED = dict(type='Pretrained', checkpoint='r50.pth')


@pytest.mark.parametrize(
    'recipe, key, value',
    [
        (UPDATES, 'model.backbone.init_cfg', PRETRAINED),
        (UPDATES, 'model.neck.init_cfg', PRETRAINED),
        (UPDATES, 'model.init_cfg', dict(type='mmengine.Pretrained', checkpoint='r50.pth')),
        (str(shipped('pretrain/configs/spark_resnet50_1600e.py')), 'model.init_cfg', PRETRAINED),
    ],
)
def test_weights_are_stated_by_their_option_alone(recipe, key, value):
    with pytest.raises(InputError, match=rf'has {key}.* with the weights r50.pth: .*--weights'):
        load_config(recipe, {key: value})


def test_a_seed_is_stated_by_its_option_alone(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(f'_base_ = {SCRATCH!r}\nrandomness = dict(seed=42, deterministic=True)\n')
    with pytest.raises(InputError, match='has randomness .*seed.*42.*: take it out, and give --seed'):
        load_config(str(path), {})


def test_no_row_of_a_pretraining_is_of_a_run_that_starts_from_none_and_the_reverse(tmp_path):
    cfg = read_config(SCRATCH)
    for method in METHODS:
        with pytest.raises(InputError, match=f'--method {method}: the run starts from no weights'):
            start_of(DetectOptions(config=SCRATCH, method=method, weights='scratch'), cfg)
    assert start_of(DetectOptions(config=SCRATCH, method='longer', weights='scratch'), cfg).method == 'longer'
    save_safetensors({'a': torch.ones(1)}, tmp_path / 'w.safetensors', {'method': 'mae'})
    weights = str(tmp_path / 'w.safetensors')
    with pytest.raises(InputError, match='--method scratch: the run starts from'):
        start_of(DetectOptions(config=SCRATCH, method='scratch', weights=weights), cfg)
    assert start_of(DetectOptions(config=SCRATCH, weights=weights), cfg).method == 'mae'


def test_a_row_that_only_the_recipe_names_is_told(tmp_path, caplog, capfd):
    save_safetensors({'a': torch.ones(1)}, tmp_path / 'w.safetensors', {})
    weights = str(tmp_path / 'w.safetensors')
    assert start_of(DetectOptions(config=UPDATES, weights=weights), read_config(UPDATES)).method == 'spark'
    told = caplog.text + ''.join(capfd.readouterr())
    assert 'does not say how it was pretrained: its row is spark' in told and '--method NAME' in told
    start_of(DetectOptions(config=UPDATES, weights=weights, method='mine'), read_config(UPDATES))
    assert 'does not say how' not in ''.join(capfd.readouterr())


@pytest.mark.parametrize(
    'kind, recipe', [(DetectOptions, SCRATCH), (FinetuneOptions, 'pretrain/configs/demo_finetune.py')]
)
def test_the_seed_of_a_draw_that_a_recipe_states_is_kept_unless_another_is_given(kind, recipe):
    run = kind_of('detection' if kind is DetectOptions else 'classification')
    overrides = {'train_dataloader.dataset.fraction_seed': 5}
    for stated, label_seed, expected in (({}, None, 0), ({}, 3, 3), (overrides, None, 5), (overrides, 3, 3)):
        options = kind(config=str(shipped(recipe)), overrides=stated, label_fraction=0.5, label_seed=label_seed)
        assert run.check_recipe(options)['train_dataloader']['dataset']['fraction_seed'] == expected


def identity(**recipe):
    return Identity('detection', recipe, 'data', 0, None)


def test_what_a_record_names_is_not_replaced_by_a_run_of_another_evaluation(tmp_path):
    training, own, other = identity(), identity(test=1), identity(test=2)
    (tmp_path / folders.STAMP).write_text(training.text)
    folders.check_stamp(tmp_path, training, own)
    folders.check_stamp(tmp_path, training, other)  # not measured yet: the evaluation may be mended
    (tmp_path / folders.STAMP).write_text(own.text)
    folders.check_stamp(tmp_path, training, own)
    with pytest.raises(InputError, match=r'another configuration \(test'):
        folders.check_stamp(tmp_path, training, other)


def test_a_checkpoint_without_a_word_of_whose_it_is_is_not_resumed_from(tmp_path):
    for name in ('epoch_1.pth', 'epoch_best.pth'):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(b'of a run of stock mmdet, or copied')
        with pytest.raises(InputError, match=f'{name} would be replaced'):
            folders.claim_folder(folder, identity())
        assert (folder / name).is_file()


def test_a_folder_that_became_anothers_while_it_was_waited_for_is_refused(tmp_path, monkeypatch):
    def lock(work_dir):
        (work_dir / folders.STAMP).write_text(identity(of='another').text)
        return contextlib.ExitStack()

    monkeypatch.setattr(folders, 'lock_folder', lock)
    with pytest.raises(InputError, match='another configuration'):
        folders.claim_folder(tmp_path, identity())


@pytest.mark.parametrize(
    'error', [OSError(errno.ENOLCK, 'No locks available'), OSError(errno.ENOSYS, 'no'), NotImplementedError('flock')]
)
def test_a_disk_without_locks_is_written_with_a_warning(tmp_path, monkeypatch, error, capfd):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(folders, 'hold', fail)
    folders.claim_folder(tmp_path, identity()).close()
    assert 'knows no locks' in ''.join(capfd.readouterr())


def test_a_folder_that_cannot_be_synced_keeps_what_was_written(tmp_path, monkeypatch):
    sync = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f'/proc/self/fd/{descriptor}'):
            raise OSError(errno.EINVAL, 'Invalid argument')
        sync(descriptor)

    monkeypatch.setattr(os, 'fsync', fsync)
    create_file(tmp_path / 'a/record.json', b'{}')
    assert (tmp_path / 'a/record.json').read_bytes() == b'{}'


def test_a_disk_that_is_full_for_a_moment_costs_a_display_and_no_training(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(monitoring, 'write_atomically', full)
    runner = SimpleNamespace(work_dir=str(tmp_path), iter=0, max_iters=2)
    hook = monitoring.ProgressHook()
    hook.before_train(runner)
    hook._written = -10.0
    hook.after_train_iter(runner, 0, outputs={'loss': 1.0})
    assert not list(tmp_path.iterdir())


def test_why_a_cell_failed_is_kept_whatever_names_it_has(tmp_path):
    note_failure(tmp_path / 'cell', 'image caf\udce9.png cannot be read')
    assert any(b'caf\\udce9.png' in path.read_bytes() for path in (tmp_path / 'cell').iterdir())


def test_files_of_others_below_a_work_directory_stay(tmp_path):
    kept = [tmp_path / name for name in ('.draft.tmp', 'sub/.draft.tmp', 'other/.epoch_1.pth.4242.deadbeef.tmp')]
    gone = [tmp_path / name for name in ('.a.pth.7.0123abcd.tmp', 'reconstructions/.epoch_1.png.7.0123abcd.tmp')]
    for path in (*kept, *gone):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'x')
    clear_leftovers(tmp_path)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)


@pytest.mark.parametrize('size', [0, -1, 'a'])
def test_a_batch_that_is_no_number_of_images_is_refused(size):
    options = DetectOptions(config=SCRATCH, overrides={'train_dataloader.batch_size': size})
    with pytest.raises(InputError, match='train_dataloader.batch_size'):
        kind_of('detection').check_recipe(options)


@pytest.mark.parametrize('protocol', ['detection', 'finetune'])
@pytest.mark.parametrize('option, value', [('--suite', 'mine'), ('--method', 'x'), ('--seed', '3'), ('--results', 'r')])
def test_what_an_evaluation_has_no_record_for_is_refused(protocol, option, value, capsys):
    assert commands.main(['evaluate', '--protocol', protocol, '--weights', 'w', option, value]) == 2
    assert f'{option} has no meaning for --protocol {protocol}' in capsys.readouterr().err


@pytest.mark.parametrize('option', ['--hours', '--gpus-per-node', '--cpus-per-gpu'])
def test_options_of_a_cluster_without_one_are_refused(option, capsys):
    assert commands.main(['run', 'demo', option, '3', '--dry-run']) == 2
    assert f'{option} is for a cluster' in capsys.readouterr().err


def test_processes_fit_the_batch_of_a_config_of_mmdet(tmp_path):
    config = str(stock('retinanet', tmp_path))
    batch = load_config(config, {}).global_batch
    cell = SimpleNamespace(name='cell', options={'config': config, 'overrides': {}})
    assert fitting_processes([cell], 8) == max(number for number in range(1, 9) if batch % number == 0) > 1
