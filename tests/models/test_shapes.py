"""Parts of a network that do not fit each other are refused by the key of the config, before anything is trained."""

import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from small_recipes import ROOT, tiny, words

from pretrain.encoder import create_network
from spark_bench import commands, registration  # noqa: F401
from spark_bench.checkpoints import save
from spark_bench.errors import InputError
from spark_bench.models.shapes import check_shapes, check_size

ROI = 'model.roi_head.'


def refused(capsys, arguments, *named):
    status = commands.main([str(word) for word in arguments])
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith('spark-bench')]
    assert status == 2 and all(word in line for word in named), (status, line)


@pytest.mark.parametrize(
    'setting, named',
    [
        ('model.neck.in_channels=[1,2,3,4]', 'model.neck.in_channels is [1, 2, 3, 4]: give [64, 128, 256, 512]'),
        ('model.backbone.arch=resnet50', 'give [256, 512, 1024, 2048]'),
        ('model.backbone.out_indices=(0,1)', 'model.neck.in_channels is [64, 128, 256, 512]: give [64, 128]'),
        ('model.neck.out_channels=64', 'model.rpn_head.in_channels is 32: give 64'),
        ('model.neck.num_outs=6', 'model.rpn_head.anchor_generator.strides is [4, 8, 16, 32, 64], 5 of them, but'),
        (f'{ROI}mask_roi_extractor.featmap_strides=[4,8,16,32,64,128]', 'featmap_strides'),
        (f'{ROI}bbox_roi_extractor.out_channels=8', f'{ROI}bbox_roi_extractor.out_channels is 8: give 32'),
        (f'{ROI}bbox_head.in_channels=8', f'{ROI}bbox_head.in_channels is 8: give 32'),
        (f'{ROI}mask_head.in_channels=8', f'{ROI}mask_head.in_channels is 8: give 32'),
        (f'{ROI}bbox_head.roi_feat_size=5', f'{ROI}bbox_head.roi_feat_size is 5: give 7'),
        (f'{ROI}bbox_roi_extractor.roi_layer.output_size=5', f'{ROI}bbox_head.roi_feat_size is 7: give 5'),
        (f'{ROI}mask_roi_extractor.roi_layer.output_size=7', 'model.train_cfg.rcnn.mask_size is 28: give 14'),
    ],
)
def test_a_detector_whose_parts_do_not_fit_is_refused_by_key(setting, named, tmp_path):
    key, _, value = setting.partition('=')
    settings = {key.removeprefix('model.'): DictAction._parse_iterable(value)}
    with pytest.raises(InputError, match=re.escape(named)):
        check_shapes(*build(tiny(tmp_path), **settings))


@pytest.mark.parametrize(
    'setting, named',
    [
        ('model.neck.in_channels=[1,2,3,4]', 'model.neck.in_channels is [1, 2, 3, 4]: give [64, 128, 256, 512]'),
        ('model.neck.num_outs=3', 'num_outs'),
        (f'{ROI}bbox_head.num_classes=4', f'{ROI}bbox_head.num_classes: it would be of no effect; the classes'),
    ],
)
def test_the_command_refuses_it_before_anything_is_written(setting, named, boxes, tmp_path, capsys):
    refused(capsys, [*words(tiny(tmp_path), boxes, tmp_path), '--cfg-options', setting], named)
    assert not (tmp_path / 'results').exists() and not list((tmp_path / 'work').glob('config_hash'))


def test_channels_that_follow_from_the_architecture_are_not_changed_in_vain(boxes, tmp_path, capsys):
    refused(
        capsys,
        [
            'detect',
            '--data-root',
            boxes,
            '--work-dir',
            tmp_path / 'work',
            '--cfg-options',
            'model.neck.in_channels=[1,2,3,4]',
        ],
        'model.neck.in_channels',
        '--arch',
    )
    assert not (tmp_path / 'work').exists()


def test_an_evaluation_that_does_not_fit_is_refused_too(boxes, tmp_path, capsys):
    # The weights of such a detector would fit.
    save(torch.nn.Linear(1, 1), tmp_path / 'any.safetensors', {})
    refused(
        capsys,
        [
            'evaluate',
            tiny(tmp_path),
            '--data-root',
            boxes,
            '--work-dir',
            tmp_path / 'work',
            '--weights',
            tmp_path / 'any.safetensors',
            '--cfg-options',
            f'{ROI}mask_roi_extractor.roi_layer.output_size=7',
        ],
        'mask_size is 28: give 14',
    )


def build(recipe, **settings):
    init_default_scope('mmdet')
    cfg = Config.fromfile(recipe)
    cfg.merge_from_dict({f'model.{key}': value for key, value in settings.items()})
    return MODELS.build(cfg.model), cfg.model


def test_the_check_changes_neither_weights_nor_statistics_nor_random_states(tmp_path):
    model, cfg = build(tiny(tmp_path, **{'model.backbone.drop_path_rate': 0.3}))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    check_shapes(model, cfg)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    'recipe',
    [
        'demo/mask-rcnn_demo.py',
        'baselines/mask-rcnn_swin-tiny_fpn_1x_coco.py',
        'spark/mask-rcnn_convnext-tiny_fpn_3x_coco.py',
    ],
)
def test_the_recipes_fit(recipe):
    check_shapes(*build(ROOT / 'mmdet_configs' / recipe))


@pytest.mark.parametrize(
    'side', [64, pytest.param(1024, marks=pytest.mark.slow)]
)  # of the square that the backbone pads images to, when it trains
def test_the_pyramid_of_a_plain_backbone_takes_its_one_map(side):
    recipe = ROOT / 'mmdet_configs/baselines/mask-rcnn_vit-base-mae_fpn_100e_coco.py'
    small = {'backbone.arch': 'vit_tiny', 'backbone.input_size': side}
    model, cfg = build(recipe, **small, **{'neck.in_channels': 192})
    check_shapes(model, cfg)
    assert model.backbone(torch.zeros(1, 3, 32, 32))[0].shape[-1] == side // 16
    with pytest.raises(InputError, match=r'model\.neck\.in_channels is 768: give 192'):
        check_shapes(*build(recipe, **small))


def test_a_classifier_of_another_number_of_classes_is_refused(images, tmp_path, capsys):
    start = ['finetune', '--data-root', images, '--work-dir', tmp_path / 'work', '--weights', 'scratch']
    refused(capsys, [*start, '--cfg-options', 'model.num_classes=3'], 'model.num_classes', 'classes of --data-root')
    assert not (tmp_path / 'work').exists()


def test_a_wrong_evaluation_of_a_classifier_is_refused_before_training(images, tmp_path, capsys):
    start = [
        'finetune',
        '--data-root',
        images,
        '--work-dir',
        tmp_path / 'work',
        '--results',
        tmp_path / 'results',
        '--weights',
        'scratch',
        '--threads',
        '1',
        '--workers',
        '0',
    ]
    right = ['--cfg-options', 'train_cfg.max_epochs=1', 'global_batch=24']
    refused(capsys, [*start, *right, 'evaluation_dataloader.batch_size=0'], 'batch_size=0')
    assert commands.main([str(word) for word in [*start, *right]]) == 0, 'the same folder serves'


@pytest.mark.parametrize(
    'settings, named',
    [
        (['model.input_size=64'], ['model.input_size is 64', 'train_dataloader.dataset.input_size is 128']),
        (['train_dataloader.dataset.input_size=64'], ['model.input_size is 128', 'dataset.input_size is 64']),
        (['model.decoder_width=16'], ['decoder_width is 16', 'from 32 up']),
    ],
)
def test_a_pretraining_that_does_not_fit_is_refused(settings, named, images, tmp_path, capsys):
    start = [
        'pretrain',
        '--data-root',
        images,
        '--work-dir',
        tmp_path / 'work',
        '--results',
        tmp_path / 'results',
        '--threads',
        '1',
        '--cfg-options',
        'global_batch=8',
    ]
    refused(capsys, [*start, *settings], *named)
    assert not (tmp_path / 'work/config_hash').exists()


def test_weights_of_other_categories_are_refused(boxes, tmp_path, capsys):
    recipe = tiny(tmp_path)
    model, _ = build(recipe)  # of 80 categories
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'detector.pth')
    refused(
        capsys,
        [
            'evaluate',
            recipe,
            '--data-root',
            boxes,
            '--work-dir',
            tmp_path / 'work',
            '--weights',
            tmp_path / 'detector.pth',
        ],
        'detector.pth does not fit',
        'number of categories',
    )


@pytest.mark.parametrize(
    'arch, side, fits',
    [
        ('vit_tiny_patch16_224', 64, False),
        ('vit_tiny_patch16_224', 224, True),
        ('swin_tiny_patch4_window7_224', 96, False),
        ('test_resnet', 64, True),
        ('test_convnext', 100, True),
    ],
)
def test_a_network_of_one_size_is_told_of_another(arch, side, fits):
    network = create_network(arch).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    if fits:
        check_size(network, arch, side, '--input-size')
    else:
        with pytest.raises(InputError, match=rf'--input-size {side}: {arch} .*made for 224'):
            check_size(network, arch, side, '--input-size')
    assert network.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    'command',
    [
        ['evaluate', '--protocol', 'knn', '--input-size', '64', '--suite', 'test'],
        ['evaluate', '--protocol', 'linear', '--input-size', '64', '--suite', 'test'],
        ['finetune', '--weights', 'scratch', '--epochs', '1', '--cfg-options', 'global_batch=8'],
    ],
)
def test_images_of_a_size_that_a_network_does_not_take_are_refused(capsys, images, tmp_path, command):
    places = ['--data-root', images, '--work-dir', tmp_path / 'w', '--results', tmp_path / 'r', '--threads', '1']
    refused(
        capsys,
        [*command[:1], *places, '--workers', '0', '--arch', 'vit_tiny_patch16_224', *command[1:]],
        '64: vit_tiny_patch16_224',
        'made for 224',
    )
    assert not (tmp_path / 'r').exists()
