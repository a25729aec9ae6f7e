"""Fine-tuning: recipes, schedules, batches, labels in part, and what is refused."""

import json
import math
import shutil

import numpy as np
import pytest
import timm
from mmengine.config import Config
from PIL import Image
from small_finetuning import CLASSES, TRAIN, VAL, refused, small, words
from small_recipes import ROOT, record_of

from spark_bench import commands
from spark_bench.checkpoints import save
from spark_bench.data.classification import build_transform
from spark_bench.training.batches import RepeatedImageSampler

RECIPES = sorted(path.stem for path in (ROOT / 'pretrain/configs').glob('finetune_*.py'))
# With a small network of the same kind.
TRANSFORMERS = {'finetune_vit-base_100e': 'vit_mini', 'finetune_swin-base_100e': 'swin_mini'}


@pytest.mark.parametrize('recipe', ['finetune_resnet50_300e', 'finetune_convnext-small_400e'])
def test_recipe_trains_two_updates_and_evaluates(recipe, images, tmp_path):
    # The recipe around a small network of its family: the large ones are the slow test's.
    arch = 'test_resnet' if 'resnet' in recipe else 'test_convnext'
    check_recipe(recipe, images, tmp_path, '--arch', arch)


@pytest.mark.slow
@pytest.mark.parametrize('recipe', [name for name in RECIPES if name not in TRANSFORMERS])
def test_every_recipe_trains_two_updates_with_its_own_network(recipe, images, tmp_path):
    check_recipe(recipe, images, tmp_path)


@pytest.mark.parametrize(
    'recipe', [*TRANSFORMERS, *(pytest.param(name, marks=pytest.mark.slow) for name in TRANSFORMERS)]
)
def test_recipes_of_transformers_train_two_updates_and_evaluate(recipe, images, tmp_path, request):
    own = request.node.get_closest_marker('slow')
    network = ['--batch-size', '8'] if own else ['--arch', TRANSFORMERS[recipe]]
    arguments = ['--weights', 'scratch', '--epochs', '1', *network]
    settings = small(224 if own else 96)
    assert commands.main(words(images, tmp_path, *arguments, recipe=recipe, settings=settings)) == 0
    record = record_of(tmp_path)
    assert record['method'] == 'scratch' and len(record['curves']['loss']) == 2
    assert record['metrics']['top1'] == record['metrics']['top1_last_raw'] and 'top1_last_ema' not in record['metrics']
    assert {path.name for path in (tmp_path / 'work').glob('*.safetensors')} == {
        'classifier.safetensors',
        'classifier_best.safetensors',
    }
    weights = str(tmp_path / 'work' / 'classifier.safetensors')
    arguments = ['evaluate', '--protocol', 'finetune', f'pretrain/configs/{recipe}.py', '--weights', weights]
    arguments += ['--data-root', str(images), '--work-dir', str(tmp_path / 'again'), '--threads', '1']
    arguments += [] if own else ['--arch', TRANSFORMERS[recipe]]
    assert commands.main([*arguments, '--cfg-options', *settings[1:2]]) == 0
    assert json.loads((tmp_path / 'again' / 'metrics.json').read_text())['top1'] == record['metrics']['top1']
    # Without a config, the file says what of an image the network is to see.
    own = tmp_path / 'own'
    bare = ['evaluate', '--protocol', 'finetune', '--weights', weights, '--data-root', str(images), '--threads', '1']
    assert commands.main([*bare, '--work-dir', str(own)]) == 0
    assert json.loads((own / 'metrics.json').read_text())['top1'] == record['metrics']['top1']
    predictions = [np.load(folder / 'predictions.npz')['scores'] for folder in (tmp_path / 'again', own)]
    assert np.array_equal(*predictions)


@pytest.mark.parametrize(
    'recipe, batch, lr, warmup, factors, decay, exempt, clip, top1',
    [
        ('vit-base_100e', 1024, 2e-3, 5, (0, 1e-6), 0.65, {'pos_embed', 'cls_token'}, None, 83.6),
        ('swin-base_100e', 2048, 5e-3, 20, (1e-6, 1e-6), 0.9, {'relative_position_bias_table'}, 5.0, 84.0),
    ],
)
def test_recipes_of_transformers_are_the_published_ones(recipe, batch, lr, warmup, factors, decay, exempt, clip, top1):
    cfg = Config.fromfile(ROOT / f'pretrain/configs/finetune_{recipe}.py')
    assert (cfg.global_batch, cfg.train_cfg.max_epochs) == (batch, 100)
    assert math.isclose(cfg.base_lr * batch / 256, lr)
    [schedule] = cfg.param_scheduler
    assert (schedule.warmup, schedule.end) == (warmup, 100)
    assert np.allclose([schedule.start_factor * lr, schedule.end_factor * lr], factors, rtol=1e-9)
    optimizer = cfg.optim_wrapper
    assert optimizer.paramwise_cfg.decay_rate == decay and set(optimizer.paramwise_cfg.no_decay) == {'1d', *exempt}
    assert optimizer.get('clip_grad') == (clip and dict(max_norm=clip))
    assert (optimizer.optimizer.type, optimizer.optimizer.weight_decay) == ('AdamW', 0.05)
    assert not [hook for hook in cfg.custom_hooks if hook.type == 'WeightEmaHook']
    model, transform = cfg.model, cfg.train_dataloader.dataset.transform
    assert (model.mixup_alpha, model.cutmix_alpha, model.label_smoothing, model.drop_path_rate) == (0.8, 1.0, 0.1, 0.1)
    assert (transform.augment, transform.erasing, transform.scale) == ('randaugment_m9', 0.25, (0.08, 1.0))
    assert cfg.evaluation_dataloader.dataset.transform.crop_ratio == 224 / 256 and cfg.expected.top1 == top1


def check_recipe(recipe, images, tmp_path, *extra):
    assert (
        commands.main(
            words(
                images,
                tmp_path,
                '--weights',
                'scratch',
                '--epochs',
                '1',
                '--batch-size',
                '4',
                *extra,
                recipe=recipe,
                settings=small(64),
            )
        )
        == 0
    )
    record = record_of(tmp_path)
    assert record['method'] == 'scratch' and len(record['curves']['loss']) == 2
    assert record['metrics']['epoch_best_ema'] == 1 and record['metrics']['top1'] == record['metrics']['top1_last_ema']
    assert record['dataset']['train_images'] == CLASSES * TRAIN and record['dataset']['val_images'] == CLASSES * VAL
    assert {path.name for path in (tmp_path / 'work').glob('*.safetensors')} == {
        'classifier.safetensors',
        'classifier_ema.safetensors',
        'classifier_best.safetensors',
        'classifier_best_ema.safetensors',
    }
    assert not list((tmp_path / 'work').glob('*.pth'))


@pytest.mark.parametrize(
    'recipe, batch, lr, epochs, warmup, decay, wd, mixup, repeats, drop, ema',
    [
        ('convnext-small_400e', 4096, 2e-4, 400, 20, 0.7, 0.01, 0.8, 3, 0.3, 0.9999),
        ('convnext-base_400e', 4096, 1e-4, 400, 20, 0.7, 0.01, 0.8, 3, 0.4, 0.9999),
        ('convnext-large_200e', 4096, 1e-4, 200, 10, 0.7, 0.02, 0.8, 3, 0.5, 0.9999),
        ('convnext-large_384_200e', 1024, 6e-5, 200, 20, 0.7, 0.01, 0.8, 3, 0.5, 0.99995),
        ('resnet50_300e', 2048, 2e-3, 300, 5, 0.7, 0.02, 0.1, 1, 0.05, 0.9999),
        ('resnet101_300e', 2048, 1e-3, 300, 5, 0.8, 0.02, 0.1, 1, 0.2, 0.9999),
        ('resnet152_300e', 2048, 1e-3, 300, 5, 0.8, 0.02, 0.1, 1, 0.2, 0.9999),
        ('resnet200_300e', 2048, 1e-3, 300, 5, 0.8, 0.02, 0.1, 1, 0.2, 0.9999),
    ],
)
def test_recipes_are_the_published_ones(recipe, batch, lr, epochs, warmup, decay, wd, mixup, repeats, drop, ema):
    cfg = Config.fromfile(ROOT / f'pretrain/configs/finetune_{recipe}.py')
    assert (cfg.global_batch, cfg.base_lr, cfg.train_cfg.max_epochs) == (batch, lr, epochs)
    [schedule] = cfg.param_scheduler
    assert (schedule.warmup, schedule.end, schedule.start_factor, schedule.end_factor) == (warmup, epochs, 0.005, 0.001)
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=decay, no_decay=['1d'])
    assert cfg.optim_wrapper.optimizer.weight_decay == wd and 'clip_grad' not in cfg.optim_wrapper
    model, sampler = cfg.model, cfg.train_dataloader.sampler
    assert (model.mixup_alpha, model.cutmix_alpha, model.label_smoothing, model.drop_path_rate) == (
        mixup,
        1.0,
        0.1,
        drop,
    )
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
def test_transforms_of_every_recipe_make_images_of_its_size(recipe):
    cfg = Config.fromfile(ROOT / f'pretrain/configs/{recipe}.py')
    image = Image.new('RGB', (500, 400))
    for loader in (cfg.train_dataloader, cfg.evaluation_dataloader):
        transform = loader.dataset.transform.to_dict()
        assert build_transform(transform)(image).shape == (3, cfg.side, cfg.side)


def test_learning_rate_follows_the_formula_of_the_recipe_in_every_group(images, tmp_path, monkeypatch):
    from spark_bench.training.loop import UpdateOptimWrapper

    seen = []
    step = UpdateOptimWrapper.step

    def watch(self, **kwargs):
        seen.append([(group['lr'], group['lr_scale']) for group in self.optimizer.param_groups])
        return step(self, **kwargs)

    monkeypatch.setattr(UpdateOptimWrapper, 'step', watch)
    assert (
        commands.main(
            words(
                images,
                tmp_path,
                '--weights',
                'scratch',
                '--epochs',
                '3',
                '--arch',
                'test_resnet',
                recipe='finetune_resnet50_300e',
                settings=small(),
            )
        )
        == 0
    )
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
    assert {round(scale, 9) for _, scale in seen[0]} == {round(0.7**power, 9) for power in range(6)}


def test_a_share_of_the_labels_is_drawn_once_and_recorded(images, tmp_path):
    settings = ['global_batch=6', 'train_cfg.max_epochs=1']
    hashes = set()
    for name, extra in (('half', ['0.5']), ('other', ['0.5', '--label-seed', '1']), ('all', ['1.0'])):
        folder = tmp_path / name
        assert commands.main(words(images, folder, '--label-fraction', *extra, settings=settings)) == 0
        record = record_of(folder)
        assert record['dataset']['train_images'] == CLASSES * (TRAIN if name == 'all' else TRAIN // 2)
        assert len(record['curves']['loss']) == record['dataset']['train_images'] // 6
        hashes.add(record['config_hash'])
    assert len(hashes) == 3


def test_several_repeats_of_a_image_are_augmented_apart_and_dealt_out_as_timm_does(monkeypatch):
    from timm.data.distributed_sampler import RepeatAugSampler

    data, seed = list(range(40)), 5
    for ranks in (1, 2, 4):
        for rank in range(ranks):
            monkeypatch.setattr('spark_bench.training.batches.get_world_size', lambda ranks=ranks: ranks)
            monkeypatch.setattr('spark_bench.training.batches.get_rank', lambda rank=rank: rank)
            ours = RepeatedImageSampler(data, seed=seed, global_batch=8)
            theirs = RepeatAugSampler(data, num_replicas=ranks, rank=rank, num_repeats=3, selected_round=8)
            for epoch in (0, 3):
                ours.set_epoch(epoch)
                theirs.set_epoch(epoch + seed)
                keys = list(ours)
                assert [index for _, index in keys] == list(theirs)
                assert len({key for key in keys}) == len(keys), 'each repeat has a seed of its own'


def test_accumulated_batches_make_the_update_of_a_whole_one_and_bfloat16_nearly(images, tmp_path):
    """In a network without batch norm, whose batches are not mixed, only rounding tells them apart."""
    curves = {}
    for name, extra in (
        ('whole', []),
        ('parts', ['--accumulate', '4']),
        ('amp', ['--amp']),
        ('layout', ['--channels-last']),
    ):
        folder = tmp_path / name
        assert (
            commands.main(
                words(
                    images,
                    folder,
                    '--weights',
                    'scratch',
                    '--epochs',
                    '2',
                    '--arch',
                    'test_convnext',
                    *extra,
                    settings=['global_batch=24', 'model.label_smoothing=0.0'],
                )
            )
            == 0
        )
        curves[name] = [value for _, value in record_of(folder)['curves']['loss']]
    assert len(curves['whole']) == 4
    assert curves['parts'] == pytest.approx(curves['whole'], rel=1e-4)
    assert curves['layout'] == pytest.approx(curves['whole'], rel=1e-4)
    assert curves['amp'] == pytest.approx(curves['whole'], rel=2e-2) and curves['amp'] != curves['whole']


def test_bad_options_are_refused_in_one_line(images, tmp_path, capsys):
    start = words(images, tmp_path)
    refused(capsys, [*start, '--cfg-options', 'global_batch=1000'], 'fewer than one batch of 1000', 'global_batch=')
    refused(capsys, [*start, '--cfg-options', 'model.loss="hinge"'], 'model.loss', 'soft_target')
    refused(capsys, [*start, '--batch-size', '5'], '--batch-size 5')
    refused(capsys, [*start, '--weights', tmp_path / 'none.pth'], 'none.pth')
    refused(capsys, ['finetune', ROOT / 'pretrain/configs/demo_pretrain.py', *start[1:]], 'demo_pretrain.py', 'recipe')
    encoder = tmp_path / 'encoder.safetensors'
    save(timm.create_model('test_resnet', num_classes=0), encoder, {'arch': 'test_resnet'})
    refused(
        capsys,
        [
            'evaluate',
            '--protocol',
            'finetune',
            ROOT / 'pretrain/configs/demo_finetune.py',
            '--data-root',
            images,
            '--weights',
            encoder,
            '--work-dir',
            tmp_path / 'evaluation',
        ],
        'no whole classifier',
        'encoder.safetensors',
    )
    assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize('split', ['train', pytest.param('val', marks=pytest.mark.slow)])
def test_a_damaged_image_is_named_in_one_line(split, images, tmp_path, capsys):
    data = tmp_path / 'data'
    shutil.copytree(images, data)
    bad = data / split / 'class2' / '1.png'
    bad.write_bytes(bad.read_bytes()[:60])
    arguments = words(data, tmp_path, '--weights', 'scratch', '--epochs', '1', settings=['global_batch=12'])
    arguments[arguments.index('--workers') + 1] = '2'
    refused(capsys, arguments, str(bad), 'copy it again')
    assert not (tmp_path / 'results').exists()
    if split == 'val':
        whole = tmp_path / 'whole.safetensors'
        save(timm.create_model('test_resnet', num_classes=CLASSES), whole, {'arch': 'test_resnet'})
        refused(
            capsys,
            [
                'evaluate',
                '--protocol',
                'finetune',
                ROOT / 'pretrain/configs/demo_finetune.py',
                '--data-root',
                data,
                '--weights',
                whole,
                '--workers',
                '2',
                '--work-dir',
                tmp_path / 'evaluation',
            ],
            str(bad),
            'copy it again',
        )
        assert not (tmp_path / 'evaluation' / 'metrics.json').exists()


def test_what_a_file_says_of_its_pretraining_comes_before_the_recipe(images, tmp_path):
    encoder = tmp_path / 'encoder.safetensors'
    save(timm.create_model('test_resnet', num_classes=0), encoder, {'arch': 'test_resnet', 'method': 'no_sparse'})
    assert (
        commands.main(
            words(
                images,
                tmp_path,
                '--weights',
                str(encoder),
                '--epochs',
                '1',
                '--arch',
                'test_resnet',
                recipe='finetune_resnet50_300e',
                settings=small(),
            )
        )
        == 0
    )
    assert record_of(tmp_path)['method'] == 'no_sparse'
