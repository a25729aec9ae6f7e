"""Pretraining by every method: the loss is mmpretrain's, a run that broke off ends with the same bits."""

import json
import time

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from killing import finish, kill, start
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from safetensors.torch import load_file
from small_methods import (
    BATCH,
    EPOCHS,
    MEAN,
    METHODS,
    OPTIMIZERS,
    SEED,
    STD,
    STOCK,
    UPDATES,
    collate,
    schedule,
    small_recipe,
    words,
    write_images,
)
from torch.utils.data import DataLoader

from pretrain.encoder import create_network
from spark_bench import checkpoints, commands
from spark_bench.models.backbones import SparKTimm
from spark_bench.models.classifier import SparKClassifier
from spark_bench.models.detection_backbones import SparKSwin
from spark_bench.models.methods import METHODS as METHODS_KNOWN
from spark_bench.models.pretraining import pretrainer_of
from spark_bench.models.supervised import SupervisedPretrainer
from spark_bench.models.vit import SparKViT
from spark_bench.places import shipped
from spark_bench.probes.features import build_backbone
from spark_bench.runs.inputs import load_config
from spark_bench.runs.options import PretrainOptions
from spark_bench.runs.pretrain import Pretraining
from spark_bench.training.batches import ImageSampler
from spark_bench.training.resume import checkpoints_of


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images'))


@pytest.fixture(
    scope='module', params=[pytest.param(name, marks=pytest.mark.slow) if name == 'byol' else name for name in METHODS]
)
def finished(request, images, tmp_path_factory):
    """(method, folder) of a finished run."""
    folder = tmp_path_factory.mktemp(request.param)
    assert commands.main(words(small_recipe(request.param, folder), images, folder)) == 0
    return request.param, folder


def curve_of(folder):
    [path] = (folder / 'results').rglob('*.json')
    return [loss for _, loss in json.loads(path.read_text())['curves']['loss']]


class Watch(Hook):
    """Notes every loss; starts from given weights where there are any."""

    def __init__(self, weights=None):
        self.losses, self.weights = [], weights

    def before_train(self, runner):
        if self.weights is not None:
            runner.model.load_state_dict(self.weights, strict=True)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss']))


def stock_weights():
    """The classifier's first weights, in mmpretrain's names: its layer and timm's are initialised otherwise."""
    torch.manual_seed(SEED)
    ours = SupervisedPretrainer('test_resnet', 2).backbone.state_dict()
    return {
        f'head.{name}' if name.startswith('fc.') else f'backbone.timm_model.{name}': value
        for name, value in ours.items()
    }


def train_stock(method, images, folder):
    """mmpretrain's model, trained by mmengine's Runner on the same views; its losses."""
    dataset = dict(Config.fromfile(small_recipe(method, folder)).train_dataloader.dataset, root=str(images))
    dataset = DATASETS.build(dataset)
    loader = DataLoader(dataset, BATCH, sampler=ImageSampler(dataset, SEED, BATCH), collate_fn=collate)
    model = dict(STOCK[method])
    if method != 'supervised':
        model['data_preprocessor'] = dict(type='SelfSupDataPreprocessor', mean=MEAN, std=STD)
    watch = Watch(stock_weights() if method == 'supervised' else None)
    runner = Runner(
        model=model,
        work_dir=str(folder / 'stock'),
        train_dataloader=loader,
        default_scope='mmpretrain',
        train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
        optim_wrapper=dict(type='OptimWrapper', **OPTIMIZERS[method]),
        param_scheduler=schedule(),
        custom_hooks=[watch],
        randomness=dict(seed=SEED),
        experiment_name=f'stock_{method}',
        default_hooks=dict(checkpoint=None),
    )
    runner.train()
    return watch.losses


def test_losses_are_those_of_mmpretrains_model_in_mmengines_runner(finished, images, tmp_path):
    method, folder = finished
    ours, theirs = np.array(curve_of(folder)), np.array(train_stock(method, images, tmp_path))
    assert len(ours) == len(theirs) == UPDATES and len(set(ours)) > UPDATES // 2
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()


@pytest.mark.parametrize(
    'finished',
    [method if method == 'moco_v2' else pytest.param(method, marks=pytest.mark.slow) for method in METHODS],
    indirect=True,
)
def test_killed_in_mid_epoch_it_ends_with_the_same_bits(finished, images, tmp_path):
    method, reference = finished
    arguments = words(reference / f'{method}.py', images, tmp_path, '--checkpoint-interval', '3')
    for _ in range(2):
        process, before = start(arguments, tmp_path / 'log.txt'), checkpoints_of(tmp_path / 'work')[:1]
        while process.is_alive() and checkpoints_of(tmp_path / 'work')[:1] == before:
            time.sleep(0.01)
        assert process.is_alive(), (tmp_path / 'log.txt').read_text()[-3000:]
        kill(process)
        arguments[arguments.index('--workers') + 1] = '1'  # which changes nothing
    finish(start(arguments, tmp_path / 'log.txt'), tmp_path)
    assert curve_of(tmp_path) == curve_of(reference)
    for name in ('encoder', method):
        one, other = (load_file(folder / 'work' / f'{name}.safetensors') for folder in (reference, tmp_path))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name


def features_of(method, folder, image):
    """What mmpretrain's own model, filled with the whole file, makes of images before any pooling."""
    weights = load_file(folder / 'work' / f'{method}.safetensors')
    if method == 'supervised':
        network = create_network('test_resnet', num_classes=2)
        network.load_state_dict(weights, strict=True)
        return network.eval().forward_features(image)
    model = MODELS.build({**STOCK[method], '_scope_': 'mmpretrain'})
    model.load_state_dict(weights, strict=True)
    return model.eval().extract_feat(image)[0]


def maps_of(features, method):
    """Features of classification networks of timm as ``(B, C, h, w)``, or tokens of ViTs as they are."""
    return features.permute(0, 3, 1, 2) if method == 'simmim' else features


@torch.no_grad()
def test_its_encoder_gives_the_same_features_in_classifier_probe_and_detector(finished):
    method, folder = finished
    encoder, arch = (
        str(folder / 'work' / 'encoder.safetensors'),
        checkpoints.read_metadata(folder / 'work' / 'encoder.safetensors')['arch'],
    )
    image = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    expected = features_of(method, folder, image)
    network = create_network(arch)
    coverage = checkpoints.load(network, encoder)
    assert not coverage.unused and not coverage.fresh and set(coverage.loaded) == set(network.state_dict())
    probe = build_backbone(arch, encoder)
    classifier = SparKClassifier(arch, 3, encoder)
    classifier.init_weights()
    for other in (probe, classifier.backbone.eval()):
        found = maps_of(other.forward_features(image), method)
        assert torch.allclose(found, expected, atol=1e-5), (method, (found - expected).abs().max())
    detector = build_detector(method, arch, encoder)
    detector.init_weights()
    *_, third, last = (None, *detector.eval()(image))
    if method == 'simmim':
        # mmdet shifts windows on a map of one window too, in the last stage; its outputs have fresh norms of their own.
        [expected] = network.eval().forward_intermediates(image, indices=[2], intermediates_only=True)
        last, expected = third, F.layer_norm(expected.permute(0, 2, 3, 1), (128,)).permute(0, 3, 1, 2)
    if method == 'mae':
        # A detector's ViT has neither class token nor final norm.
        plain = timm.create_model(arch, class_token=False, num_classes=0, global_pool='')
        weights = {name: value for name, value in load_file(encoder).items() if name != 'cls_token'}
        plain.load_state_dict(weights | {'pos_embed': weights['pos_embed'][:, 1:]}, strict=True)
        last, expected = plain.norm(last.flatten(2).transpose(1, 2)), plain.eval().forward_features(image)
    assert torch.allclose(last, expected, atol=1e-4)


@pytest.mark.parametrize('finished', ['mae', pytest.param('simmim', marks=pytest.mark.slow)], indirect=True)
def test_its_encoder_is_fine_tuned_and_probed_as_it_is(finished, images, tmp_path):
    method, folder = finished
    encoder = str(folder / 'work' / 'encoder.safetensors')
    shared = [
        '--data-root',
        str(images),
        '--weights',
        encoder,
        '--results',
        str(tmp_path / 'results'),
        '--threads',
        '1',
        '--workers',
        '0',
    ]
    assert (
        commands.main(
            [
                'finetune',
                'pretrain/configs/cifar10_finetune.py',
                '--arch',
                checkpoints.read_metadata(encoder)['arch'],
                *shared,
                '--work-dir',
                str(tmp_path / 'finetune'),
                '--epochs',
                '3',
                '--cfg-options',
                'global_batch=4',
                'model.drop_path_rate=0.1',
                'optim_wrapper.paramwise_cfg.decay_rate=0.7',
            ]
        )
        == 0
    )
    assert (
        commands.main(
            [
                'evaluate',
                '--protocol',
                'knn',
                *shared,
                '--work-dir',
                str(tmp_path / 'knn'),
                '--input-size',
                '96',
                '--neighbours',
                '3',
            ]
        )
        == 0
    )
    records = [json.loads(path.read_text()) for path in (tmp_path / 'results').rglob('*.json')]
    pretrained = checkpoints.read_metadata(encoder)['config_hash']
    assert {record['task'] for record in records} == {'classification', 'knn'}
    assert {(record['method'], record['weights']['config_hash']) for record in records} == {(method, pretrained)}


def build_detector(method, arch, encoder):
    if method == 'mae':
        return SparKViT(arch, encoder, input_size=96, window_size=0)
    return SparKSwin(arch, encoder, window_size=3) if method == 'simmim' else SparKTimm(arch, encoder)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--method', 'dino'], "unknown method of pretraining 'dino': choose one of spark, "),
        (['pretrain/configs/small_mae.py', '--method', 'simmim'], 'the recipe pretrains by mae'),
        (['pretrain/configs/demo_pretrain.py', '--method', 'mae'], 'the recipe pretrains by spark or an ablation'),
        (['--method', 'spark', '--ablation', 'ape'], 'are two methods: give one'),
        (['mmdet_configs/demo/mask-rcnn_demo.py'], 'is no recipe of pretraining'),
        (['--method', 'mae', '--arch', 'test_resnet'], 'mae pretrains plain ViTs'),
        (['--method', 'simmim', '--arch', 'vit_mini'], 'simmim pretrains Swins'),
        (['--method', 'byol', '--arch', 'swin_mini'], 'by the last map of a convnet'),
        (['--method', 'mae', '--arch', 'vit_tiny'], 'model.input_size is 96: vit_tiny is made for 224'),
        (['--method', 'byol', '--batch-size', '8'], 'cannot sum the gradients of 8 batches'),
        (['--method', 'supervised', '--bad-images', 'skip'], '--bad-images has no meaning for supervised'),
        (['--method', 'moco_v2', '--cfg-options', 'model.queue_len=100'], 'model.queue_len is 100'),
        (['--method', 'byol', '--cfg-options', 'global_batch=1'], 'global_batch is 1: give at least 2'),
        (['--method', 'byol', '--image-interval', '1'], '--image-interval has no meaning for byol'),
        (['--method', 'mae', '--cfg-options', 'model.mask_ratio=0.99'], 'leaves one of 36 patches or more'),
        (['--method', 'mae', '--cfg-options', 'model.decoder_heads=0'], 'model.decoder_heads is 0'),
        (['--method', 'mae', '--cfg-options', 'model.decoder_depth=0'], 'model.decoder_depth is 0'),
        (['--method', 'simmim', '--cfg-options', 'model.window_size=0'], 'model.window_size is 0'),
        (['--method', 'simmim', '--arch', 'swin_tiny'], 'model.window_size is 7: give a whole number from 1 up to'),
        (
            ['--method', 'supervised', '--arch', 'vit_base'],
            'train_dataloader.dataset.transform.input_size 96: vit_base',
        ),
        (['--method', 'simmim', '--cfg-options', 'model.mask_patch=32'], 'views.mask_patch is 16'),
        (['--method', 'moco_v2', '--cfg-options', 'train_dataloader.dataset.views.type=mae'], 'takes moco_v2 or byol'),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(images, tmp_path, capsys, arguments, message):
    assert (
        commands.main(
            [
                'pretrain',
                '--data-root',
                str(images),
                '--work-dir',
                str(tmp_path / 'work'),
                '--results',
                str(tmp_path / 'results'),
                *arguments,
            ]
        )
        == 2
    )
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0] and not (tmp_path / 'work').exists(), error


@pytest.mark.parametrize('method', METHODS)
def test_a_method_without_a_config_takes_its_small_recipe(method):
    cfg = Config.fromfile(shipped(METHODS_KNOWN[method].recipe))
    assert pretrainer_of(cfg, '').settle(cfg.model) == method


# From recipe to a small network for it, and to its learning rate, written down again from its source.
PUBLISHED = {
    'mae_vit-base_1600e': ('vit_tiny', 1.5e-4 * 4096 / 256),
    'mae_vit-base_800e': ('vit_tiny', 2.4e-3),
    'simmim_swin-base_100e': ('swin_mini', 2e-4 * 2048 / 512),
    'simmim_swin-base_800e': ('swin_mini', 4e-4),
    'moco_v2_resnet50_800e': ('test_resnet', 0.03),
    'byol_resnet50_1000e': ('test_resnet', 0.2 * 4096 / 256),
    'supervised_resnet50_90e': ('test_resnet', 0.1),
}


@pytest.mark.parametrize('recipe', PUBLISHED)
def test_recipes_of_published_size_state_the_published_values(recipe):
    path = shipped(f'pretrain/configs/{recipe}.py')
    Pretraining.check_recipe(PretrainOptions(config=str(path)))
    cfg = load_config(str(path), {})
    Pretraining.fit_recipe(cfg, PretrainOptions(config=str(path)))
    epochs = int(recipe.rpartition('_')[2].removesuffix('e'))
    assert cfg.recipe_version == 1 and cfg.expected is None
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(PUBLISHED[recipe][1]) and cfg.train_cfg.max_epochs == epochs
    assert cfg.param_scheduler[-1].end == epochs


@pytest.mark.slow
@pytest.mark.parametrize('recipe', PUBLISHED)
def test_recipes_of_published_size_train_a_small_network(recipe, images, tmp_path):
    assert (
        commands.main(
            words(
                f'pretrain/configs/{recipe}.py',
                images,
                tmp_path,
                '--arch',
                PUBLISHED[recipe][0],
                '--epochs',
                '1',
                '--batch-size',
                '8',
                '--cfg-options',
                'global_batch=8',
                *['model.queue_len=32'] * recipe.startswith('moco'),
                *['model.hidden=32'] * recipe.startswith('byol'),
            )
        )
        == 0
    )
    losses = curve_of(tmp_path)
    assert len(losses) == 2 and all(np.isfinite(losses))
