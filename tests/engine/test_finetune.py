"""Fine-tuning: recipes, what a run leaves behind, EMA, resuming, several processes, labels in part."""

import json
import math
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from killing import finish, kill, start
from mmengine.config import Config
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.metrics import top_k_accuracy_score

from spark_bench import cli
from spark_bench.checkpoints import save
from spark_bench.data.augmentation import build_transform
from spark_bench.engine.accuracy import Predictions
from spark_bench.engine.batches import RepeatedPictureSampler
from spark_bench.engine.ema import WeightEmaHook
from spark_bench.engine.resume import checkpoints_of

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in (ROOT / 'pretrain/configs').glob('finetune_*.py'))
CLASSES, TRAIN, VAL = 6, 8, 3


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Six classes that differ in colour, 8 pictures each for training and 3 for evaluation."""
    root = tmp_path_factory.mktemp('classes')
    rng = np.random.default_rng(0)
    for split, count in (('train', TRAIN), ('val', VAL)):
        for number in range(CLASSES):
            folder = root / split / f'class{number}'
            folder.mkdir(parents=True)
            colour = np.array([number * 40, 250 - number * 40, 30 * (number % 3)])
            for i in range(count):
                noisy = colour + rng.integers(-30, 30, (8, 8, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).resize((72, 64)).save(folder / f'{i}.png')
    return root


def words(pictures, folder, *extra, recipe=None, settings=()):
    chosen = [f'pretrain/configs/{recipe}.py'] if recipe else []
    return ['finetune', *chosen, '--data-root', str(pictures), '--work-dir', str(folder / 'work'), '--results',
            str(folder / 'results'), '--threads', '1', '--workers', '0', *extra,
            *(['--cfg-options', *settings] if settings else [])]


def small(side=32, *more):
    """Settings that make an ImageNet recipe fit a handful of pictures: two updates an epoch."""
    return [f'train_dataloader.dataset.transform.input_size={side}',
            f'evaluation_dataloader.dataset.transform.input_size={side}', 'global_batch=24',
            'param_scheduler.0.warmup=1', *more]


def record_of(folder):
    [path] = (folder / 'results').rglob('*.json')
    return json.loads(path.read_text())


def predictions_of(folder, name='predictions'):
    with np.load(folder / 'work' / f'{name}.npz') as stored:
        return Predictions(stored['labels'], stored['classes'], stored['scores'])


@pytest.mark.parametrize('recipe', ['finetune_resnet50_300e', 'finetune_convnext-small_400e'])
def test_recipe_trains_two_updates_and_evaluates(recipe, pictures, tmp_path):
    # The recipe around a small network of its family: the large ones are the slow test's.
    arch = 'test_resnet' if 'resnet' in recipe else 'test_convnext'
    check_recipe(recipe, pictures, tmp_path, '--arch', arch)


@pytest.mark.slow
@pytest.mark.parametrize('recipe', [name for name in RECIPES if 'demo' not in name])
def test_every_recipe_trains_two_updates_with_its_own_network(recipe, pictures, tmp_path):
    check_recipe(recipe, pictures, tmp_path)


def check_recipe(recipe, pictures, tmp_path, *extra):
    assert cli.main(words(pictures, tmp_path, '--weights', 'scratch', '--epochs', '1', '--batch-size', '4', *extra,
                          recipe=recipe, settings=small(64))) == 0
    record = record_of(tmp_path)
    assert record['method'] == 'scratch' and len(record['curves']['loss']) == 2
    assert record['metrics']['epoch_best_ema'] == 1 and record['metrics']['top1'] == record['metrics']['top1_last_ema']
    assert record['dataset']['train_images'] == CLASSES * TRAIN and record['dataset']['val_images'] == CLASSES * VAL
    assert {path.name for path in (tmp_path / 'work').glob('*.safetensors')} == {
        'classifier.safetensors', 'classifier_ema.safetensors', 'classifier_best.safetensors',
        'classifier_best_ema.safetensors'}
    assert not list((tmp_path / 'work').glob('*.pth'))


@pytest.mark.parametrize('recipe, batch, lr, epochs, warmup, decay, wd, mixup, repeats, drop, ema', [
    ('convnext-small_400e', 4096, 2e-4, 400, 20, 0.7, 0.01, 0.8, 3, 0.3, 0.9999),
    ('convnext-base_400e', 4096, 1e-4, 400, 20, 0.7, 0.01, 0.8, 3, 0.4, 0.9999),
    ('convnext-large_200e', 4096, 1e-4, 200, 10, 0.7, 0.02, 0.8, 3, 0.5, 0.9999),
    ('convnext-large_384_200e', 1024, 6e-5, 200, 20, 0.7, 0.01, 0.8, 3, 0.5, 0.99995),
    ('resnet50_300e', 2048, 2e-3, 300, 5, 0.7, 0.02, 0.1, 1, 0.05, 0.9999),
    ('resnet101_300e', 2048, 1e-3, 300, 5, 0.8, 0.02, 0.1, 1, 0.2, 0.9999),
    ('resnet152_300e', 2048, 1e-3, 300, 5, 0.8, 0.02, 0.1, 1, 0.2, 0.9999),
    ('resnet200_300e', 2048, 1e-3, 300, 5, 0.8, 0.02, 0.1, 1, 0.2, 0.9999)])
def test_recipes_are_the_published_ones(recipe, batch, lr, epochs, warmup, decay, wd, mixup, repeats, drop, ema):
    cfg = Config.fromfile(ROOT / f'pretrain/configs/finetune_{recipe}.py')
    assert (cfg.global_batch, cfg.base_lr, cfg.train_cfg.max_epochs) == (batch, lr, epochs)
    [schedule] = cfg.param_scheduler
    assert (schedule.warmup, schedule.end, schedule.start_factor, schedule.end_factor) == (warmup, epochs, 0.005, 0.001)
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=decay, no_decay=['1d'])
    assert cfg.optim_wrapper.optimizer.weight_decay == wd and 'clip_grad' not in cfg.optim_wrapper
    model, sampler = cfg.model, cfg.train_dataloader.sampler
    assert (model.mixup_alpha, model.cutmix_alpha, model.label_smoothing, model.drop_path_rate) == (
        mixup, 1.0, 0.1, drop)
    assert sampler.get('repeats', 1) == repeats
    assert [hook.decay for hook in cfg.custom_hooks if hook.type == 'WeightEmaHook'] == [ema]
    if 'resnet' in recipe:
        assert model.loss == 'binary' and cfg.optim_wrapper.optimizer.type == 'TimmLamb'
        assert cfg.optim_wrapper.optimizer.max_grad_norm is None and cfg.optim_wrapper.optimizer.always_adapt
        assert not cfg.optim_wrapper.optimizer.bias_correction
    else:
        assert model.loss == 'soft_target' and cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.expected.top1 > 80 and cfg.expected.source and cfg.expected.tolerance


@pytest.mark.parametrize('recipe', RECIPES)
def test_transforms_of_every_recipe_make_pictures_of_its_size(recipe):
    cfg = Config.fromfile(ROOT / f'pretrain/configs/{recipe}.py')
    picture = Image.new('RGB', (500, 400))
    for loader in (cfg.train_dataloader, cfg.evaluation_dataloader):
        transform = loader.dataset.transform.to_dict()
        assert build_transform(transform)(picture).shape == (3, cfg.side, cfg.side)


def test_learning_rate_follows_the_formula_of_the_recipe_in_every_group(pictures, tmp_path, monkeypatch):
    from spark_bench.engine.loop import UpdateOptimWrapper
    seen = []
    step = UpdateOptimWrapper.step

    def watch(self, **kwargs):
        seen.append([(group['lr'], group['lr_scale']) for group in self.optimizer.param_groups])
        return step(self, **kwargs)
    monkeypatch.setattr(UpdateOptimWrapper, 'step', watch)
    assert cli.main(words(pictures, tmp_path, '--weights', 'scratch', '--epochs', '3', '--arch', 'test_resnet',
                          recipe='finetune_resnet50_300e', settings=small())) == 0
    peak, warmup, total = 2e-3 * 24 / 256, 2, 6
    assert len(seen) == total
    for number, groups in enumerate(seen):
        if number < warmup:
            expected = peak * (0.005 + 0.995 * number / warmup)
        else:
            progress = (number - warmup) / (total - 1 - warmup)
            expected = peak * (0.001 + 0.999 * (0.5 + 0.5 * math.cos(math.pi * progress)))
        for lr, scale in groups:
            assert math.isclose(lr, expected * scale, rel_tol=1e-12)
    assert {round(scale, 9) for _, scale in seen[0]} == {round(0.7 ** power, 9) for power in range(6)}


def test_ema_is_the_weighted_sum_of_all_weights_it_has_seen():
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=3)

    class Runner:
        pass
    runner = Runner()
    runner.model = model
    hook = WeightEmaHook(0.9)
    hook.before_train(runner)
    names = ['conv1.0.weight', 'fc.bias', 'layer4.0.bn1.running_var']
    expected = {name: model.state_dict()[name].double().clone() for name in names}
    for number in range(5):
        with torch.no_grad():
            for name in names:
                model.state_dict()[name].add_(number + 1)
        hook.after_train_iter(runner, number)
        expected = {name: 0.9 * value + 0.1 * model.state_dict()[name].double() for name, value in expected.items()}
    for name in names:
        assert torch.allclose(hook.model.state_dict()[name].double(), expected[name], rtol=1e-5, atol=1e-6), name


def test_ema_of_a_run_is_that_of_its_weights_after_each_update(pictures, tmp_path, monkeypatch):
    seen = []
    update = WeightEmaHook.after_train_iter

    def watch(self, runner, *arguments, **kwargs):
        seen.append({name: value.double().clone() for name, value in runner.model.backbone.state_dict().items()})
        return update(self, runner, *arguments, **kwargs)
    start = WeightEmaHook.before_train

    def begin(self, runner):
        seen.append({name: value.double().clone() for name, value in runner.model.backbone.state_dict().items()})
        return start(self, runner)
    monkeypatch.setattr(WeightEmaHook, 'before_train', begin)
    monkeypatch.setattr(WeightEmaHook, 'after_train_iter', watch)
    assert cli.main(words(pictures, tmp_path, '--weights', 'scratch', '--epochs', '2', '--arch', 'test_resnet',
                          recipe='finetune_resnet50_300e', settings=small(32, 'custom_hooks.0.decay=0.8'))) == 0
    stored, last = (load_file(tmp_path / f'work/classifier{suffix}.safetensors') for suffix in ('_ema', ''))
    assert len(seen) == 5
    for name, value in stored.items():
        if value.is_floating_point():
            expected = seen[0][name]
            for weights in seen[1:]:
                expected = 0.8 * expected + 0.2 * weights[name]
            assert torch.allclose(value.double(), expected, rtol=1e-4, atol=1e-6), name
        assert torch.equal(last[name].double(), seen[-1][name])
    with safe_open(tmp_path / 'work/classifier_ema.safetensors', 'pt') as file:
        assert file.metadata()['arch'] == 'test_resnet' and file.metadata()['method'] == 'scratch'


@pytest.fixture(scope='module')
def learnt(pictures, tmp_path_factory):
    """A run that learns: the demo's recipe with an EMA."""
    folder = tmp_path_factory.mktemp('learnt')
    hooks = '[dict(type="WeightEmaHook", decay=0.5), dict(type="AccuracyHook"), dict(type="ProgressHook")]'
    config = folder / 'learn.py'
    config.write_text(f"_base_ = '{ROOT}/pretrain/configs/demo_finetune.py'\ncustom_hooks = {hooks}\n")
    arguments = words(pictures, folder, '--weights', 'scratch', '--epochs', '8', settings=['global_batch=12'])
    assert cli.main([arguments[0], str(config), *arguments[1:]]) == 0
    return folder, config


def test_top1_and_top5_are_scikit_learns_on_the_dumped_predictions(learnt):
    folder, _ = learnt
    metrics = record_of(folder)['metrics']
    for name, key in (('predictions_ema', 'top1_last_ema'), ('predictions', 'top1_last_raw')):
        found = predictions_of(folder, name)
        scores = np.full((len(found.labels), CLASSES), -np.inf)
        np.put_along_axis(scores, found.classes, found.scores.astype(float), axis=1)
        scores[np.isneginf(scores)] = scores[~np.isneginf(scores)].min() - 1
        assert metrics[key] == pytest.approx(100 * top_k_accuracy_score(found.labels, scores, k=1), abs=1e-9)
        if name == 'predictions_ema':
            assert metrics['top1'] == metrics[key]
            assert metrics['top5'] == pytest.approx(100 * top_k_accuracy_score(found.labels, scores, k=5), abs=1e-9)
    assert metrics['top1'] > 100 / CLASSES + 20  # it did learn
    assert sorted(found.labels.tolist()) == sorted(list(range(CLASSES)) * VAL)


def test_the_best_weights_are_those_of_the_best_epoch(learnt, tmp_path):
    folder, config = learnt
    record = record_of(folder)
    for name in ('raw', 'ema'):
        curve = record['curves'][f'top1_{name}']
        assert [epoch for epoch, _ in curve] == list(range(1, 9))
        best = max(value for _, value in curve)
        assert record['metrics'][f'top1_best_{name}'] == best
        assert record['metrics'][f'epoch_best_{name}'] == next(epoch for epoch, value in curve if value == best)
        assert record['metrics'][f'top1_last_{name}'] == curve[-1][1]


def test_a_fine_tuned_network_works_in_timm_as_it_is(learnt, pictures):
    folder, _ = learnt
    network = timm.create_model('test_resnet', num_classes=CLASSES).eval()
    network.load_state_dict(load_file(folder / 'work/classifier.safetensors'))
    found = predictions_of(folder)
    with Image.open(sorted(pictures.glob('val/*/*'))[0]) as picture:
        pixels = torch.from_numpy(np.array(picture.resize((72, 64)).crop((4, 0, 68, 64)))).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = network(((pixels - mean) / std).permute(2, 0, 1)[None])[0]
    assert logits[found.classes[0]].numpy() == pytest.approx(found.scores[0], abs=1e-4)


def test_a_share_of_the_labels_is_drawn_once_and_recorded(pictures, tmp_path):
    settings = ['global_batch=6', 'train_cfg.max_epochs=1']
    hashes = set()
    for name, extra in (('half', ['0.5']), ('other', ['0.5', '--label-seed', '1']), ('all', ['1.0'])):
        folder = tmp_path / name
        assert cli.main(words(pictures, folder, '--label-fraction', *extra, settings=settings)) == 0
        record = record_of(folder)
        assert record['dataset']['train_images'] == CLASSES * (TRAIN if name == 'all' else TRAIN // 2)
        assert len(record['curves']['loss']) == record['dataset']['train_images'] // 6
        hashes.add(record['config_hash'])
    assert len(hashes) == 3


def test_several_repeats_of_a_picture_are_augmented_apart_and_dealt_out_as_timm_does(monkeypatch):
    from timm.data.distributed_sampler import RepeatAugSampler
    data, seed = list(range(40)), 5
    for ranks in (1, 2, 4):
        for rank in range(ranks):
            monkeypatch.setattr('spark_bench.engine.batches.get_world_size', lambda ranks=ranks: ranks)
            monkeypatch.setattr('spark_bench.engine.batches.get_rank', lambda rank=rank: rank)
            ours = RepeatedPictureSampler(data, seed=seed, global_batch=8)
            theirs = RepeatAugSampler(data, num_replicas=ranks, rank=rank, num_repeats=3, selected_round=8)
            for epoch in (0, 3):
                ours.set_epoch(epoch)
                theirs.set_epoch(epoch + seed)
                keys = list(ours)
                assert [index for _, index in keys] == list(theirs)
                assert len({key for key in keys}) == len(keys), 'each repeat has a seed of its own'


def test_accumulated_batches_make_the_update_of_a_whole_one_and_bfloat16_nearly(pictures, tmp_path):
    """In a network without batch norm, whose batches are not mixed, only rounding tells them apart."""
    curves = {}
    for name, extra in (('whole', []), ('parts', ['--accumulate', '4']), ('amp', ['--amp']),
                        ('layout', ['--channels-last'])):
        folder = tmp_path / name
        assert cli.main(words(pictures, folder, '--weights', 'scratch', '--epochs', '2', '--arch', 'test_convnext',
                              *extra, settings=['global_batch=24', 'model.label_smoothing=0.0'])) == 0
        curves[name] = [value for _, value in record_of(folder)['curves']['loss']]
    assert len(curves['whole']) == 4
    assert curves['parts'] == pytest.approx(curves['whole'], rel=1e-4)
    assert curves['layout'] == pytest.approx(curves['whole'], rel=1e-4)
    assert curves['amp'] == pytest.approx(curves['whole'], rel=2e-2) and curves['amp'] != curves['whole']


CASE = ['--arch', 'test_convnext', '--epochs', '8', '--checkpoint-interval', '1', '--weights', 'scratch', '--seed', '3']


def run_words(pictures, folder):
    return words(pictures, folder, *CASE, recipe='finetune_convnext-small_400e',
                 settings=small(64, 'custom_hooks.0.decay=0.8', 'global_batch=16', 'base_lr=0.03'))


def weights_of(folder):
    return {path.name: load_file(path) for path in sorted((folder / 'work').glob('*.safetensors'))}


@pytest.fixture(scope='module')
def undisturbed(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    finish(start(run_words(pictures, folder), folder / 'log.txt'), folder)
    return folder


@pytest.mark.parametrize('seed', [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_killed_at_random_steps_it_ends_with_the_same_bits(undisturbed, pictures, tmp_path, seed):
    rng = random.Random(seed)
    kills = 0
    for _ in range(3 if seed == 0 else 8):
        process = start(run_words(pictures, tmp_path), tmp_path / 'log.txt')
        before = checkpoints_of(tmp_path / 'work')[:1]
        while process.is_alive() and checkpoints_of(tmp_path / 'work')[:1] == before:
            process.join(0.01)
        process.join(rng.uniform(0, 0.15))
        if not process.is_alive():
            break
        kill(process)
        kills += 1
    finish(start(run_words(pictures, tmp_path), tmp_path / 'log.txt'), tmp_path)
    assert kills
    ours, theirs = weights_of(tmp_path), weights_of(undisturbed)
    assert ours.keys() == theirs.keys() and len(ours) == 4
    for file, tensors in ours.items():
        assert all(torch.equal(value, theirs[file][name]) for name, value in tensors.items()), file
    assert record_of(tmp_path)['curves'] == record_of(undisturbed)['curves']
    assert record_of(tmp_path)['metrics'] == record_of(undisturbed)['metrics']
    assert len({value for _, value in record_of(undisturbed)['curves']['top1_raw']}) > 1  # there was something to lose


def test_interrupted_behind_the_last_step_it_evaluates_and_records_as_ever(undisturbed, pictures, tmp_path,
                                                                         monkeypatch):
    from spark_bench.engine import finetune

    def broken(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(finetune, '_finish', broken)
        assert cli.main(run_words(pictures, tmp_path)) == 130
    assert not (tmp_path / 'results').exists()
    assert cli.main(run_words(pictures, tmp_path)) == 0
    assert record_of(tmp_path)['metrics'] == record_of(undisturbed)['metrics']
    ours, theirs = predictions_of(tmp_path, 'predictions_ema'), predictions_of(undisturbed, 'predictions_ema')
    assert (ours.scores == theirs.scores).all() and (ours.classes == theirs.classes).all()


def free_port():
    with socket.socket() as chosen:
        chosen.bind(('localhost', 0))
        return str(chosen.getsockname()[1])


def test_two_processes_evaluate_every_picture_once(pictures, tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-port', free_port(),
               '-m', 'spark_bench.cli', *words(pictures, tmp_path, '--weights', 'scratch', '--epochs', '1', '--arch',
                                               'test_resnet', '--launcher', 'torchrun',
                                               recipe='finetune_resnet50_300e', settings=small())]
    done = subprocess.run(command, env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
                          capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('record: ') == 1
    found = predictions_of(tmp_path)
    assert len(found.labels) == CLASSES * VAL
    # One process says the same of the same weights.
    assert cli.main(['evaluate', '--protocol', 'finetune', str(ROOT / 'pretrain/configs/finetune_resnet50_300e.py'),
                     '--arch', 'test_resnet', '--data-root', str(pictures), '--weights',
                     str(tmp_path / 'work/classifier.safetensors'), '--work-dir', str(tmp_path / 'alone'), '--workers',
                     '0', '--cfg-options', *small()]) == 0
    with np.load(tmp_path / 'alone/predictions.npz') as alone:
        assert np.allclose(alone['scores'], found.scores, atol=1e-4) and (alone['labels'] == found.labels).all()
    metrics = json.loads((tmp_path / 'alone/metrics.json').read_text())
    assert metrics['top1'] == pytest.approx(record_of(tmp_path)['metrics']['top1_last_raw'])


def refused(capsys, arguments, *expected):
    assert cli.main([str(word) for word in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in error for word in expected), error


def test_bad_options_are_refused_in_one_line(pictures, tmp_path, capsys):
    start = words(pictures, tmp_path)
    refused(capsys, [*start, '--cfg-options', 'global_batch=1000'], 'fewer than one batch of 1000', 'global_batch=')
    refused(capsys, [*start, '--cfg-options', 'model.loss="hinge"'], 'model.loss', 'soft_target')
    refused(capsys, [*start, '--batch-size', '5'], '--batch-size 5')
    refused(capsys, [*start, '--weights', tmp_path / 'none.pth'], 'none.pth')
    refused(capsys, ['finetune', ROOT / 'pretrain/configs/demo_pretrain.py', *start[1:]], 'demo_pretrain.py', 'recipe')
    encoder = tmp_path / 'encoder.safetensors'
    save(timm.create_model('test_resnet', num_classes=0), encoder, {'arch': 'test_resnet'})
    refused(capsys, ['evaluate', '--protocol', 'finetune', '--data-root', pictures, '--weights', encoder, '--work-dir',
                     tmp_path / 'evaluation'], 'no whole classifier', 'encoder.safetensors')
    assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_damaged_picture_is_named_in_one_line(split, pictures, tmp_path, capsys):
    data = tmp_path / 'data'
    shutil.copytree(pictures, data)
    bad = data / split / 'class2' / '1.png'
    bad.write_bytes(bad.read_bytes()[:60])
    arguments = words(data, tmp_path, '--weights', 'scratch', '--epochs', '1', settings=['global_batch=12'])
    arguments[arguments.index('--workers') + 1] = '2'
    refused(capsys, arguments, str(bad), 'copy it again')
    assert not (tmp_path / 'results').exists()
    if split == 'val':
        whole = tmp_path / 'whole.safetensors'
        save(timm.create_model('test_resnet', num_classes=CLASSES), whole, {'arch': 'test_resnet'})
        refused(capsys, ['evaluate', '--protocol', 'finetune', '--data-root', data, '--weights', whole, '--workers',
                         '2', '--work-dir', tmp_path / 'evaluation'], str(bad), 'copy it again')
        assert not (tmp_path / 'evaluation' / 'metrics.json').exists()


def test_what_a_file_says_of_its_pretraining_comes_before_the_recipe(pictures, tmp_path):
    encoder = tmp_path / 'encoder.safetensors'
    save(timm.create_model('test_resnet', num_classes=0), encoder, {'arch': 'test_resnet', 'method': 'no_sparse'})
    assert cli.main(words(pictures, tmp_path, '--weights', str(encoder), '--epochs', '1', '--arch', 'test_resnet',
                          recipe='finetune_resnet50_300e', settings=small())) == 0
    assert record_of(tmp_path)['method'] == 'no_sparse'
