"""Packed equals reference, architecture by architecture: loss, maps, all gradients, batch-norm statistics.

In float64 the networks run as they are. In float32 a ReLU or a max pool that two roundings put on different sides of
its kink changes a gradient by about one part in the square root of its elements, whichever engine rounded: the
reference differs from itself in float64 by as much. So there every kink is replaced by a smooth function of the same
shape, and what is left is rounding.
"""

import copy

import pytest
import torch
from sampling import all_but
from timm import layers
from timm.layers.grn import GlobalResponseNorm
from torch import nn

from pretrain import build_spark, random_mask
from pretrain.encoder import create_network
from pretrain.masking import VisibleLayout, expand_mask
from pretrain.sparse.operations import MODULES

QUICK = (
    'resnet18',
    'resnet50',
    'resnet18d',
    'convnext_atto',
    'convnextv2_atto',
    'regnety_002',
    'tf_efficientnet_b0',
    'mobilenetv3_small_100',
)
LARGE = (
    'seresnet50',
    'resnet50_gn',
    'convnext_tiny',
    'efficientnet_b0',
    'densenet121',
    'resnet26',
    'resnet34',
    'resnet101',
    'resnet152',
    'resnet200',
    'resnet26d',
    'resnet34d',
    'resnet50d',
    'resnet101d',
    'resnet152d',
    'resnet200d',
    'resnext50_32x4d',
    'resnext50d_32x4d',
    'resnext101_32x8d',
    'resnetaa50',
    'resnetblur50',
    'ecaresnet50t',
    'convnext_femto',
    'convnext_pico',
    'convnext_nano',
    'convnext_small',
    'convnext_base',
    'convnext_large',
    'convnextv2_femto',
    'convnextv2_nano',
    'convnextv2_tiny',
    'convnextv2_base',
    'regnety_016',
    'regnety_032',
    'regnetx_002',
    'efficientnet_b1',
    'efficientnet_b3',
    'efficientnetv2_s',
    'mobilenetv3_large_100',
    'tf_mobilenetv3_large_100',
    'mobilenetv2_100',
    'resnetv2_50',
    'dla34',
    'vgg16_bn',
)
# So deep that float32 itself, batch norm over a few positions after another, is further than 1e-4 from the truth.
DEEPEST = ('resnet152', 'resnet200', 'resnet152d', 'resnet200d', 'efficientnet_b1', 'efficientnetv2_s')
ALL = all_but(LARGE, (*QUICK, *LARGE))

SMOOTH = {nn.ReLU: nn.SiLU, nn.ReLU6: nn.SiLU, nn.Hardswish: nn.SiLU, nn.Hardsigmoid: nn.Sigmoid}


def smooth(model):
    """Replace what has a kink, wherever it stands."""
    for path, module in list(model.named_modules()):
        if type(module) in SMOOTH:
            model.set_submodule(path, SMOOTH[type(module)]())
        elif type(module) is nn.MaxPool2d:
            model.set_submodule(path, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
    return model


def lively(model):
    """Random affine parameters about what training leaves: scales initialised to zero would hide whole branches."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.encoder.named_parameters():
        if parameter.dim() == 1:
            noise = torch.randn(parameter.shape, generator=generator)
            centre = 0.0 if name.endswith('bias') else parameter.data.clamp(min=0.2)
            parameter.data = 0.1 * noise + centre
    return model


def twins(arch, side, ratio, training, dtype, change=lambda model: model, **options):
    torch.manual_seed(0)
    packed = lively(build_spark(arch, side, ratio, decoder_width=64, drop_path_rate=0.0, **options))
    packed = change(packed).to(dtype).train(training)
    # Traced anew, since the modules may have been replaced.
    packed.encoder = type(packed.encoder)(packed.encoder.pyramid, 'packed')
    reference = copy.deepcopy(packed)
    reference.encoder = type(packed.encoder)(reference.encoder.pyramid, 'reference')
    return packed, reference


def assert_equal(packed, reference, image, active, tolerance):
    """The largest relative difference of each kind is at most ``tolerance``."""
    layout = VisibleLayout(active)
    states = [copy.deepcopy(model.state_dict()) for model in (packed, reference)]
    with torch.no_grad():
        maps = [layout.unpack(x) for x in packed.encoder(image, layout)]
        expected_maps = reference.encoder.maps(reference.encoder.masked(image, layout), layout)
    for ours, theirs in zip(maps, expected_maps, strict=True):
        assert theirs.abs().sum() > 0 and relative(ours, theirs) <= tolerance
    for model, state in zip((packed, reference), states, strict=True):
        model.load_state_dict(state)  # the maps above moved the running statistics
    loss, expected_loss = packed(image, active), reference(image, active)
    assert relative(loss, expected_loss) <= tolerance
    loss.backward()
    expected_loss.backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    total = sum(gradient.norm() ** 2 for gradient in expected.values()).sqrt()
    for name, parameter in packed.named_parameters():
        # A gradient that is zero but for rounding (a bias in front of a norm) is measured against the whole.
        scale = torch.maximum(expected[name].norm(), 1e-2 * total)
        assert (parameter.grad - expected[name]).norm() <= tolerance * scale, name
    for (name, ours), theirs in zip(packed.named_buffers(), reference.buffers(), strict=True):
        assert relative(ours.double(), theirs.double(), 1e-4 * theirs.numel() ** 0.5) <= tolerance, name


def relative(ours, theirs, at_least=1e-30):
    return ((ours - theirs).norm() / theirs.norm().clamp(min=at_least)).item()


def make_image(batch, side, dtype):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(2)).to(dtype)


@pytest.mark.parametrize(
    'training', [pytest.param(True, id='train'), pytest.param(False, id='eval', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('arch', all_but({*QUICK, *LARGE} - {'resnet50', 'convnext_atto'}, (*QUICK, *LARGE)))
def test_packed_equals_reference_in_float32_where_nothing_has_a_kink(arch, training):
    packed, reference = twins(arch, 96, 0.6, training, torch.float32, smooth)
    active = random_mask(4, 3, 0.6, torch.Generator().manual_seed(1))
    deepest = training and arch in DEEPEST
    assert_equal(packed, reference, make_image(4, 96, torch.float32), active, 5e-3 if deepest else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('arch', DEEPEST)
def test_packed_rounds_no_more_than_the_reference_in_the_deepest_networks(arch):
    packed, reference = twins(arch, 96, 0.6, True, torch.float32, smooth)
    exact = copy.deepcopy(reference).double()
    active, image = random_mask(4, 3, 0.6, torch.Generator().manual_seed(1)), make_image(4, 96, torch.float32)
    for model in (packed, reference, exact):
        model(image.to(next(model.parameters()).dtype), active).backward()
    ours, theirs, truth = (
        torch.cat([parameter.grad.flatten().double() for parameter in model.parameters()])
        for model in (packed, reference, exact)
    )
    assert relative(ours, truth) <= 2 * relative(theirs, truth) < 5e-3


@pytest.mark.parametrize('arch', ALL)
def test_packed_equals_reference_in_float64_as_the_network_is(arch):
    packed, reference = twins(arch, 64, 0.5, True, torch.float64)
    active = random_mask(3, 2, 0.5, torch.Generator().manual_seed(1))
    assert_equal(packed, reference, make_image(3, 64, torch.float64), active, 1e-7)


@pytest.mark.parametrize(
    'side, ratio, patch_size, batch',
    [
        (160, 0.3, 32, 1),
        (128, 0.5, 64, 3),
        (64, 0.75, 32, 5),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((128, 0.75, 32, 2), (192, 0.6, 96, 1))),
    ],
)
@pytest.mark.parametrize(
    'arch', all_but(['resnet18d', 'mobilenetv3_small_100'], ['convnextv2_atto', 'resnet18d', 'mobilenetv3_small_100'])
)
def test_any_ratio_grid_and_patch_size(arch, side, ratio, patch_size, batch):
    packed, reference = twins(arch, side, ratio, True, torch.float64, patch_size=patch_size)
    active = random_mask(batch, side // patch_size, ratio, torch.Generator().manual_seed(3))
    assert_equal(packed, reference, make_image(batch, side, torch.float64), active, 1e-7)


@pytest.mark.parametrize(
    'arch', all_but(['seresnet50', 'resnet50_gn'], ['convnextv2_atto', 'regnety_002', 'seresnet50', 'resnet50_gn'])
)
def test_images_with_unequal_counts_are_pooled_apart(arch):
    packed, reference = twins(arch, 96, 0.5, False, torch.float64)
    active = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.9, 0.5, 0.3]).view(
        3, 1, 1, 1
    )
    assert len(set(active.flatten(1).sum(1).tolist())) > 1
    assert_equal(packed, reference, make_image(3, 96, torch.float64), active, 1e-7)


def visible_means(x_BChw, active):
    mask = expand_mask(active, *x_BChw.shape[-2:])
    return (x_BChw * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True)


def gated(module, x_BChw, active):
    gate = module.fc2(module.fc1(visible_means(x_BChw, active)).relu()).sigmoid()
    return x_BChw * gate


def group_normed(module, x_BChw, active):
    grouped = x_BChw.view(len(x_BChw), module.num_groups, -1, *x_BChw.shape[2:])
    mean = visible_means(grouped.flatten(0, 1), active.repeat_interleave(module.num_groups, 0)).mean(1, keepdim=True)
    centred = grouped.flatten(0, 1) - mean
    variance = visible_means(centred**2, active.repeat_interleave(module.num_groups, 0)).mean(1, keepdim=True)
    return (centred / (variance + module.eps).sqrt()).view_as(x_BChw) * module.weight.view(1, -1, 1, 1) + (
        module.bias.view(1, -1, 1, 1)
    )


def response_normed(module, x_BChw, active):
    length = (x_BChw**2 * expand_mask(active, *x_BChw.shape[-2:])).sum((2, 3), keepdim=True).sqrt()
    weight, bias = (parameter.view(1, -1, 1, 1) for parameter in (module.weight, module.bias))
    return x_BChw + weight * x_BChw * length / (length.mean(1, keepdim=True) + module.eps) + bias


@pytest.mark.parametrize(
    'module, formula',
    [
        (layers.SEModule(16), gated),
        (nn.GroupNorm(4, 16), group_normed),
        (GlobalResponseNorm(16, channels_last=False), response_normed),
    ],
    ids=['squeeze-excite', 'group norm', 'GRN'],
)
def test_pooling_over_a_image_sees_its_visible_positions_alone(module, formula):
    module = module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    active = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]]).bool().view(2, 1, 2, 2)
    layout, x_BChw = VisibleLayout(active), torch.randn(2, 16, 8, 8, dtype=torch.float64)
    visible = expand_mask(active, 8, 8)
    expected = formula(module, x_BChw, active) * visible
    operation = MODULES[type(module)]
    assert torch.allclose(layout.unpack(operation.packed(module, layout.pack(x_BChw), layout)), expected)
    assert torch.allclose(operation.reference(module, x_BChw * visible, layout), expected)


@pytest.mark.parametrize(
    'pool',
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d((2, 2)),
        nn.AvgPool2d((2, 4), (2, 4)),
        nn.AvgPool2d((4, 4), (4, 4), (0, 0)),
        nn.AvgPool2d((3, 3), (1, 1), (1, 1)),
        nn.AvgPool2d((3, 3), (2, 2), (1, 1)),
        nn.MaxPool2d((3, 3), (2, 2), (1, 1)),
    ],
    ids=str,
)
def test_windows_may_be_given_an_axis(pool):
    active = random_mask(2, 3, 0.5, torch.Generator().manual_seed(0))
    layout, x_BChw = VisibleLayout(active), torch.randn(2, 4, 24, 24, dtype=torch.float64)
    masked, operation = x_BChw * expand_mask(active, 24, 24), MODULES[type(pool)]
    packed = layout.unpack(operation.packed(pool, layout.pack(x_BChw), layout))
    assert torch.allclose(packed, operation.reference(pool, masked, layout), rtol=0, atol=1e-12)


@pytest.mark.parametrize('engine', ['packed', 'reference'])
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize(
    'arch',
    all_but(
        ('resnetblur50', 'regnety_002', 'mobilenetv3_small_100'),
        ['resnet50', 'resnetblur50', 'convnextv2_atto', 'regnety_002', 'tf_efficientnet_b0', 'mobilenetv3_small_100'],
    ),
)
def test_masked_pixels_change_no_bit_of_any_map(arch, training, engine):
    torch.manual_seed(0)
    model = build_spark(arch, 96, 0.6, engine=engine, decoder_width=64, drop_path_rate=0.0)
    encoder = lively(model).encoder.train(training)
    active = random_mask(2, 3, 0.6, torch.Generator().manual_seed(4))
    image = make_image(2, 96, torch.float32)
    other = torch.where(expand_mask(active, 96, 96), image, 100 * torch.randn_like(image))
    with torch.no_grad():
        first, second = (encoder(pixels, VisibleLayout(active)) for pixels in (image, other))
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    'arch',
    all_but(
        ('resnet50', 'convnext_tiny'), ['resnet18', 'convnext_atto', 'resnet50', 'convnext_tiny', 'efficientnet_b0']
    ),
)
def test_bfloat16_autocast_stays_near_float32(arch):
    packed, reference = twins(arch, 96, 0.6, True, torch.float32, smooth)
    active, image = random_mask(4, 3, 0.6, torch.Generator().manual_seed(1)), make_image(4, 96, torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        loss = packed(image, active)
    loss.backward()
    expected = reference(image, active)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    assert all(torch.isfinite(parameter.grad).all() for parameter in packed.parameters())


def test_no_position_is_kept_of_what_a_norm_can_give_again():
    """What the graph holds after a forward pass: about one map a layer, not two."""
    held = {}
    for recipes in (True, False):
        packed, _ = twins('resnet18', 128, 0.5, True, torch.float32)
        if not recipes:
            for path, module in list(packed.encoder.pyramid.named_modules()):
                if type(module) is nn.BatchNorm2d:
                    # Moments of the input, and yet a type that no recipe is made for.
                    packed.encoder.pyramid.set_submodule(path, as_sync(module))
        layout = VisibleLayout(random_mask(2, 4, 0.5, torch.Generator().manual_seed(0)))
        held[recipes] = bytes_held(packed.encoder, make_image(2, 128, torch.float32), layout)
    assert held[True] < 0.85 * held[False]


class OtherBatchNorm(nn.BatchNorm2d):
    pass


def as_sync(norm):
    MODULES.setdefault(OtherBatchNorm, MODULES[nn.BatchNorm2d])
    other = OtherBatchNorm(norm.num_features)
    other.load_state_dict(norm.state_dict())
    return other


def bytes_held(encoder, image, layout):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        maps = encoder(image, layout)
    del maps
    return sum(event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]')


@pytest.mark.parametrize('arch', all_but(['efficientnet_b0'], ['resnet18', 'convnext_atto', 'efficientnet_b0']))
def test_a_converted_network_compiles_and_exports_as_the_dense_one(arch):
    encoder = build_spark(arch, 64, 0.5, decoder_width=64).encoder.eval()
    plain = create_network(arch).eval()
    plain.load_state_dict(encoder.pyramid.network.state_dict(), strict=False)
    image = make_image(1, 64, torch.float32)
    with torch.no_grad():
        exported = torch.export.export(encoder.pyramid, (image,)).module()(image)
        expected = plain.forward_intermediates(image, intermediates_only=True, norm=False)[-4:]
    for ours, theirs in zip(exported, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
