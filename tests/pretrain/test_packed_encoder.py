"""The packed encoder against a masked dense network, in float64, where only rounding may differ."""

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_dense import make_masked_dense
from sampling import all_but
from torch import nn

from pretrain import InputError, VisibleLayout, build_spark, random_mask
from pretrain.encoder import FeaturePyramid, build_encoder, create_network
from pretrain.masking import expand_mask

ARCHS = ('test_resnet', 'test_convnext', 'resnet18', 'resnet50', 'convnext_atto')


def lively(module, seed=0):
    """Random affine parameters everywhere: zero-initialised scales would hide whole branches."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.dim() == 1:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.1 * noise if name.endswith('bias') else 1 + 0.2 * noise)
    return module.double()


def encoders(arch, active):
    """(packed encoder, masked dense network) with equal weights and no stochastic depth."""
    torch.manual_seed(0)
    packed = lively(build_encoder(arch, 'packed', drop_path_rate=0.0))
    return packed, make_masked_dense(copy.deepcopy(packed.pyramid), active)


def relative(a, b):
    return ((a - b).norm() / b.norm().clamp(min=1e-30)).item()


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('arch', all_but(['resnet50'], ARCHS))
def test_packed_maps_gradients_and_statistics_equal_the_masked_dense_network(arch, training):
    active = random_mask(3, 3, 0.6, torch.Generator().manual_seed(1))
    packed, dense = encoders(arch, active)
    packed.train(training), dense.train(training)
    image = torch.randn(3, 3, 96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    layout = VisibleLayout(active)
    packed_maps = [layout.unpack(x) for x in packed(image, layout)]
    dense_maps = dense(image * expand_mask(active, 96, 96))
    for ours, theirs in zip(packed_maps, dense_maps, strict=True):
        assert relative(ours, theirs) < 1e-10
        assert theirs.abs().sum() > 0

    for maps in (packed_maps, dense_maps):
        sum((x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum() for x in maps).backward()
    theirs = {
        name.replace('.norm.', '.', 1)
        if 'VisibleBatchNorm' in type(dense.get_submodule(name.rpartition('.norm.')[0])).__name__
        else name: value
        for name, value in dense.named_parameters()
    }
    checked = 0
    for name, parameter in packed.pyramid.named_parameters():
        scale = theirs[name].grad.norm().clamp(min=1e-6)
        assert ((parameter.grad - theirs[name].grad).norm() / scale).item() < 1e-8, name
        checked += 1
    assert checked == len(theirs) > 10
    if training:
        statistics = {k.replace('.norm.running', '.running'): v for k, v in dense.named_buffers() if 'running' in k}
        for name, value in packed.pyramid.named_buffers():
            if 'running' in name:
                assert relative(value, statistics[name]) < 1e-10, name


@pytest.mark.parametrize('arch', ['resnet18', 'convnext_atto'])
def test_float32_loss_and_gradients_of_packed_and_reference_agree(arch):
    active = random_mask(2, 4, 0.6, torch.Generator().manual_seed(0))
    image = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    models = []
    for engine in ('packed', 'reference'):
        torch.manual_seed(0)
        models.append(build_spark(arch, 128, engine=engine, decoder_width=64, drop_path_rate=0.0))
    losses = [model(image, active) for model in models]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for loss in losses:
        loss.backward()
    gradients = [torch.cat([p.grad.flatten() for p in model.parameters()]) for model in models]
    # The norm of all: a single ReLU that rounding tips over moves a small parameter's gradient by more.
    assert relative(*gradients) < 1e-3


@functools.cache
def small_encoders():
    torch.manual_seed(0)
    return [lively(build_encoder(arch, 'packed')).eval() for arch in ('test_resnet', 'test_convnext')]


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 4), grid=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_packed_equals_reference_for_any_mask_even_with_unequal_counts(batch, grid, seed):
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(batch, 1, grid, grid, generator=generator) < 0.5
    active[0, 0, 0, 0] = True
    image = torch.randn(batch, 3, 32 * grid, 32 * grid, dtype=torch.float64, generator=generator)
    layout = VisibleLayout(active)
    for packed in small_encoders():
        packed.engine = 'packed'
        ours = [layout.unpack(x) for x in packed(image, layout)]
        packed.engine = 'reference'
        theirs = packed.maps(packed.masked(image, layout), layout)
        assert all(relative(a, b) < 1e-10 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize('arch', ['test_resnet', 'convnext_atto'])
def test_masked_pixels_change_no_bit_of_the_encoding(arch):
    active = random_mask(2, 4, 0.6, torch.Generator().manual_seed(0))
    encoder = lively(build_encoder(arch)).float()
    image = torch.randn(2, 3, 128, 128)
    other = torch.where(expand_mask(active, 128, 128), image, torch.randn_like(image))
    assert not torch.equal(image, other)
    for a, b in zip(encoder.eval()(image, VisibleLayout(active)), encoder(other, VisibleLayout(active)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('arch', ['resnet18', 'convnext_atto'])
def test_without_a_mask_the_encoder_is_timms_own_network(arch):
    torch.manual_seed(0)
    encoder = build_encoder(arch).eval()
    plain = create_network(arch).eval()
    plain.load_state_dict(encoder.pyramid.network.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    expected = plain.forward_intermediates(image, intermediates_only=True, norm=False)[-4:]
    for ours, theirs in zip(encoder(image), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_stochastic_depth_drops_whole_images_with_the_draws_of_the_reference():
    active = random_mask(8, 2, 0.5, torch.Generator().manual_seed(0))
    image = torch.randn(8, 3, 64, 64, dtype=torch.float64)
    encoder = lively(build_encoder('convnext_atto', drop_path_rate=0.9))
    layout = VisibleLayout(active)
    torch.manual_seed(5)
    ours = [layout.unpack(x) for x in encoder(image, layout)]
    encoder.engine = 'reference'
    torch.manual_seed(5)
    theirs = encoder.maps(encoder.masked(image, layout), layout)
    torch.manual_seed(6)
    others = encoder.maps(encoder.masked(image, layout), layout)
    assert relative(ours[-1], theirs[-1]) < 1e-10
    assert relative(others[-1], theirs[-1]) > 1e-2


class Squash(nn.Module):
    def forward(self, x):
        return x.sigmoid()


class UserNetwork(nn.Module):
    channels, strides = [8, 8, 8, 8], [4, 8, 16, 32]

    def __init__(self, extra):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.downs = nn.ModuleList(nn.Conv2d(8, 8, 2, 2) for _ in range(3))
        self.extra = extra

    def forward(self, image):
        maps = [self.extra(self.stem(image))]
        for down in self.downs:
            maps.append(down(maps[-1]))
        return maps


@pytest.mark.parametrize(
    'extra, named',
    [(nn.InstanceNorm2d(8), "'extra' (torch.nn.modules.instancenorm.InstanceNorm2d)"), (Squash(), "'sigmoid'")],
)
def test_an_operation_without_sparse_counterpart_is_refused_by_name(extra, named):
    with pytest.raises(InputError) as error:
        build_encoder(UserNetwork(extra))
    assert named in str(error.value) and 'register' in str(error.value)


def test_a_users_own_module_is_encoded():
    encoder = build_encoder(UserNetwork(nn.ReLU())).double()
    layout = VisibleLayout(random_mask(1, 2, 0.5))
    assert [x.shape[-1] for x in encoder(torch.randn(1, 3, 64, 64).double(), layout)] == [8, 4, 2, 1]


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(InputError, match='resnet50'):
        create_network('resnet5O')
    with pytest.raises(InputError, match='engine'):
        build_encoder('test_resnet', 'turbo')


def test_parameters_behind_the_last_map_are_dropped():
    names = FeaturePyramid(create_network('convnext_atto')).state_dict()
    assert not any('head' in name for name in names)
