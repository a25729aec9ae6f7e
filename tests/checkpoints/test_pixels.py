"""Weights of other pixels than ImageNet's are told, by whatever says of which they are."""

import json
import math

import pytest
import timm
import torch
from mmengine.config import Config
from timm.data import resolve_data_config

from spark_bench import checkpoints
from spark_bench.checkpoints.contents import close_checkpoint

HALF, IMAGENET = (3 * [0.5], 3 * [0.5]), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope='module')
def network():
    return timm.create_model('resnet18', num_classes=0)


@pytest.fixture
def weights(tmp_path, network):
    path = tmp_path / 'model.safetensors'
    checkpoints.save(network, path, {'arch': 'resnet18'})
    return path


def told(network, path):
    close_checkpoint()  # the last file is kept, and what lies beside it changes here
    return 'mean (0.5, 0.5, 0.5) and deviation (0.5, 0.5, 0.5)' in str(checkpoints.load(network, path))


@pytest.mark.parametrize(('pixels', 'other'), [(HALF, True), (IMAGENET, False)])
def test_timm_and_transformers_say_it_in_a_file_beside(network, weights, pixels, other):
    assert not told(network, weights)
    beside = weights.with_name('config.json')
    beside.write_text(json.dumps({'pretrained_cfg': dict(zip(('mean', 'std'), pixels, strict=True))}))
    assert told(network, weights) == other
    beside.write_text('{"model_type": "resnet"}')
    assert not told(network, weights)
    pixels_of_transformers = dict(zip(('image_mean', 'image_std'), pixels, strict=True))
    weights.with_name('preprocessor_config.json').write_text(json.dumps(pixels_of_transformers))
    assert told(network, weights) == other


def test_what_timm_itself_would_write_is_understood(network, weights):
    for name, other in (('vit_tiny_patch16_224.augreg_in21k', True), ('resnet18.a1_in1k', False)):
        config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict(), model=None)
        weights.with_name('config.json').write_text(json.dumps({'architecture': name, 'pretrained_cfg': config}))
        assert told(network, weights) == other


@pytest.mark.parametrize(('pixels', 'other'), [(HALF, True), (IMAGENET, False)])
def test_openmmlab_says_it_in_the_config_that_the_file_holds(tmp_path, network, pixels, other):
    mean, std = ([255 * value for value in values] for values in pixels)
    text = Config({'data_preprocessor': {'std': std, 'mean': mean, 'target_means': [0, 0, 0]}}).pretty_text
    for config in (
        text,
        f'data_preprocessor = dict(\n    mean=[\n        {mean[0]}, {mean[1]}, {mean[2]},\n    ], std={std})',
    ):
        torch.save({'state_dict': network.state_dict(), 'meta': {'cfg': config}}, tmp_path / 'a.pth')
        assert told(network, tmp_path / 'a.pth') == other


@pytest.mark.parametrize(
    'text',
    ['', '[', '[1]', '3', 'null', '\xff', '{"pretrained_cfg": 3}', '{"pretrained_cfg": {"mean": "0.5", "std": [1]}}']
    + ['{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}', '{"pretrained_cfg": {"mean": [NaN, 1, 1], "std": [1, 1, 1]}}']
    + [100_000 * '['],
)
def test_garbage_beside_weights_is_nothing(network, weights, text):
    weights.with_name('config.json').write_text(text, encoding='latin-1')
    assert 'pixels' not in str(checkpoints.load(network, weights))


def test_garbage_in_a_header_or_a_config_is_nothing(tmp_path, network):
    for number, said in enumerate(('[1.2.3, 4, 5]', '0.5', f'[{math.nan}, 1, 1]', '[1, 2, 3, 4]')):
        path = tmp_path / f'{number}.safetensors'
        checkpoints.save(network, path, {'pixel_mean': said, 'pixel_std': said})
        assert 'pixels' not in str(checkpoints.load(network, path))
        torch.save(
            {'state_dict': network.state_dict(), 'meta': {'cfg': f'mean={said}, std={said}'}}, tmp_path / 'a.pth'
        )
        assert 'pixels' not in str(checkpoints.load(network, tmp_path / 'a.pth'))


def test_a_folder_beside_weights_that_has_the_name_is_nothing(network, weights):
    weights.with_name('config.json').mkdir()
    assert 'pixels' not in str(checkpoints.load(network, weights))
