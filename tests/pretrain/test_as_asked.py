"""What is asked of a network or a schedule is what it has, or is refused."""

import numpy as np
import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS
from timm.layers import DropPath
from torch import nn

from pretrain import InputError, VisibleLayout, build_spark
from pretrain.decoder import UNetDecoder
from pretrain.encoder import create_network
from pretrain.masking import random_mask
from spark_bench import registration  # noqa: F401
from spark_bench.models.pretrainer import SparKPretrainer


@pytest.mark.parametrize('arch', ['swin_mini', 'swin_tiny', 'swinv2_cr_tiny_ns_224', 'convnext_atto', 'resnet18'])
def test_no_stochastic_depth_is_none(arch):
    assert not any(isinstance(module, DropPath) for module in create_network(arch, 0.0).modules())


def test_a_rate_is_that_of_the_deepest_block_and_none_timms_own():
    for rate, deepest in ((0.2, 0.2), (None, 0.1)):
        paths = [module for module in create_network('swin_mini', rate).modules() if isinstance(module, DropPath)]
        assert max(path.drop_prob for path in paths) == pytest.approx(deepest)


def test_a_network_that_knows_of_no_rate_is_built():
    assert create_network('vgg11', 0.0) is not None
    with pytest.raises(InputError, match='drop_path_rate 0.1: leave it out'):
        create_network('vgg11', 0.1)


def test_a_network_that_calls_a_slice_of_its_stem_is_packed():
    torch.manual_seed(0)
    models = [
        build_spark('ese_vovnet19b_dw', 64, 0.5, engine=engine, decoder_width=32) for engine in ('packed', 'reference')
    ]
    models[1].load_state_dict(models[0].state_dict())
    active, image = random_mask(2, 2, 0.5, torch.Generator().manual_seed(0)), torch.randn(2, 3, 64, 64).double()
    maps = [model.double().eval().encoder(image, VisibleLayout(active)) for model in models]
    for ours, theirs in zip(*maps, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize('stride', [3, 24, 56])
def test_a_stride_that_is_no_power_of_two_is_refused(stride):
    with pytest.raises(InputError, match=f'has stride {stride}'):
        UNetDecoder(stride, 64)


@pytest.mark.parametrize('colours, mean, std', [({'mean': [127.5], 'std': [50.0]}, 127.5, 50.0), ({}, 0.0, 1.0)])
def test_one_value_of_colour_is_that_of_all_channels_and_none_normalises_nothing(colours, mean, std):
    model = SparKPretrainer(
        dict(type='mmengine.ImgDataPreprocessor', **colours), arch='test_resnet', input_size=64, decoder_width=32
    )
    settings = model.settings()
    assert [settings[name] for name in ('mean', 'std')] == [str([value] * 3) for value in (mean, std)]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    shown = model.reconstruct(pixels, 0)
    hidden = (shown['masked'] != shown['original']).any(-1)
    assert np.unique(shown['masked'][hidden]).tolist() == [round(mean)]


@pytest.mark.parametrize('kind, first', [('WarmupCosine', 0.005), ('CosineWeightDecay', 1.0)])
def test_a_schedule_that_begins_late_has_its_whole_course_from_there(kind, first):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, weight_decay=1.0)
    extra = dict(warmup=1) if kind == 'WarmupCosine' else {}
    settings = dict(type=kind, begin=5, end=10, end_factor=0.0, by_epoch=True, convert_to_iter_based=True, **extra)
    schedule = PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=optimizer, epoch_length=4))
    name, values = ('lr' if kind == 'WarmupCosine' else 'weight_decay'), []
    for _ in range(40):
        values.append(optimizer.param_groups[0][name])
        schedule.step()
    assert values[20] == pytest.approx(first) and values[39] == pytest.approx(0.0, abs=1e-12)
    assert all(value == pytest.approx(values[0]) for value in values[:20])
