"""Reconstructions pixel by pixel, and the vanishing mask pattern against morphological dilation."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from pretrain import ABLATIONS, InputError, VisibleLayout, build_spark, random_mask
from pretrain.encoder import SparseEncoder
from pretrain.visualize import IMAGENET_MEAN, interpolate_visible, mask_patterns, reconstruct

MODELS = [name for name, ablation in ABLATIONS.items() if ablation.pretrains]


def build(ablation='spark', arch='test_resnet', side=128, **options):
    torch.manual_seed(0)
    return build_spark(arch, side, 0.6, ablation, decoder_width=64, **options)


def build_lively(ablation='spark'):
    """A model whose answer fills the range of uint8: a fresh one's is almost zero, and rounding would hide faults."""
    model = build(ablation)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    nn.init.normal_(model.decoder.proj.weight)
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 128, 128), mask(4))
    return model.eval()


def pixels(seed=0, batch=2, side=128):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, side, side), generator=generator, dtype=torch.uint8)


def mask(batch=2, grid=4, seed=0):
    return random_mask(batch, grid, 0.6, torch.Generator().manual_seed(seed))


def enlarge(active_B1ff, side):
    """(B, side, side) in numpy, independently of the code under test."""
    return np.kron(active_B1ff[:, 0].numpy(), np.ones((side // active_B1ff.shape[-1],) * 2)).astype(bool)


@pytest.mark.parametrize('ablation', MODELS)
def test_visible_pixels_are_the_originals_and_masked_ones_the_mean_colour(ablation):
    image, active = pixels(), mask()
    result = reconstruct(build_lively(ablation), image, active)
    original, visible = image.permute(0, 2, 3, 1).numpy(), enlarge(active, 128)
    for name, array in vars(result).items():
        assert array.dtype == torch.uint8 and array.shape == (2, 128, 128, 3), name
    assert np.array_equal(result.original, original)
    assert np.array_equal(result.pasted.numpy()[visible], original[visible])
    assert np.array_equal(result.masked.numpy()[visible], original[visible])
    assert np.array_equal(np.unique(result.masked.numpy()[~visible], axis=0), [np.round(IMAGENET_MEAN)])
    assert np.array_equal(result.pasted.numpy()[~visible], result.reconstruction.numpy()[~visible])


def test_statistics_of_the_original_give_the_image_of_the_model_itself():
    model, image, active = build_lively(), pixels(), mask()
    mean, std = torch.tensor([100.0, 110, 120]).view(3, 1, 1), torch.tensor([50.0, 60, 70]).view(3, 1, 1)
    with torch.no_grad():
        _, painted = model((image - mean) / std, active, return_reconstruction=True)
    expected = (painted * std + mean).clamp(0, 255).permute(0, 2, 3, 1)
    result = reconstruct(model, image, active, mean=(100, 110, 120), std=(50, 60, 70))
    assert (result.pasted - expected).abs().max() <= 0.501, 'half a grey level of rounding'


@pytest.mark.parametrize('ablation', MODELS)
def test_visible_statistics_let_nothing_leak_from_masked_pixels(ablation):
    model, active = build_lively(ablation), mask()
    visible = torch.from_numpy(enlarge(active, 128))[:, None]
    one, other = pixels(0), torch.where(visible, pixels(0), pixels(9) // 3)
    a, b = (reconstruct(model, image, active, statistics='visible') for image in (one, other))
    assert torch.equal(a.pasted, b.pasted) and torch.equal(a.reconstruction, b.reconstruction)
    assert a.reconstruction.float().std() > 20, 'an image that a leak would change'
    a, b = (reconstruct(model, image, active) for image in (one, other))
    assert not torch.equal(a.pasted, b.pasted), "the original's statistics do show through"


def test_interpolation_weighs_visible_patches_by_inverse_squared_distance():
    active = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 1]], dtype=torch.bool).view(1, 1, 3, 3)
    values = torch.full((1, 9, 1), 99.0)
    values[0, 0], values[0, 8] = 10.0, 20.0
    result = interpolate_visible(values, active).view(3, 3)
    assert result[0, 0] == 10 and result[2, 2] == 20 and result[1, 1] == pytest.approx(15)
    # (0, 1) is 1 away from the first and √5 from the second.
    assert result[0, 1].item() == pytest.approx((10 + 20 / 5) / (1 + 1 / 5))


@pytest.mark.parametrize('training', [True, False])
def test_the_model_and_the_random_state_stay_as_they_were(training):
    model = build('black_mosaic').train(training)
    model.decoder.dec[0].train(not training)
    modes = [module.training for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.get_rng_state()
    reconstruct(model, pixels(), mask())
    mask_patterns(model.encoder, torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)), mask())
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


class Plain(nn.Module):
    """A chain of convolutions whose geometry is known, as a pyramid of one scale."""

    channels, strides = [16], [8]

    def __init__(self):
        super().__init__()
        geometry = [(7, 2, 3), (3, 1, 1), (3, 2, 1), (1, 1, 0), (5, 1, 2), (2, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        self.layers = nn.Sequential()
        width = 3
        for kernel, stride, padding in geometry:
            self.layers.append(nn.Conv2d(width, 16, kernel, stride, padding))
            self.layers.append(nn.BatchNorm2d(16))
            self.layers.append(nn.LeakyReLU(inplace=True))
            width = 16

    def forward(self, image_B3HW):
        return [self.layers(image_B3HW)]


def dilate(support_hw, conv):
    """A position of the output responds where any position below its kernel does."""
    (kernel, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, conv.padding
    padded = np.pad(support_hw, padding)
    covered = ndimage.binary_dilation(padded, np.ones((kernel, kernel)))
    side, start = (len(padded) - kernel) // stride + 1, (kernel - 1) // 2
    return covered[start::stride, start::stride][:side, :side]


def test_dense_patterns_grow_by_the_kernel_of_each_convolution():
    torch.manual_seed(0)
    pyramid = Plain()
    convs = [module for module in pyramid.modules() if isinstance(module, nn.Conv2d)]
    image, active = torch.randn(1, 3, 64, 64), random_mask(1, 8, 0.8, torch.Generator().manual_seed(1))
    larger = [conv for conv in convs if conv.kernel_size != (1, 1)]
    patterns = mask_patterns(SparseEncoder(pyramid, 'dense'), image, active, range(len(larger) + 1))
    support = enlarge(active, 64)[0]
    assert np.array_equal(patterns[0].support_Bhw[0], support)
    for pattern, conv in zip(patterns[1:], larger, strict=True):
        support = dilate(support, conv)
        assert np.array_equal(pattern.support_Bhw[0], support), pattern.name
    fractions = [pattern.fraction for pattern in patterns]
    assert fractions[0] == pytest.approx(13 / 64) and fractions[-1] > 0.9
    assert [pattern.stride for pattern in patterns] == [1, 2, 2, 4, 4, 8, 8, 8, 8]


@pytest.mark.parametrize('arch', ['test_resnet', 'test_convnext', 'resnet18'])
def test_black_mosaic_lets_the_mask_vanish_and_sparse_encoding_keeps_it(arch):
    side = 224
    image, active = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)), mask(1, 7)
    patterns = {
        (name, engine): mask_patterns(build(name, arch, side, engine=engine).encoder, image, active)
        for name, engine in (('spark', 'packed'), ('spark', 'reference'), ('black_mosaic', 'packed'))
    }
    naive = [pattern.fraction for pattern in patterns['black_mosaic', 'packed']]
    assert naive[0] == pytest.approx(20 / 49)
    assert naive == sorted(naive) and naive[-1] == 1.0, 'it grows until nothing is left of the mask'
    assert naive[2] > 20 / 49
    for engine in ('packed', 'reference'):
        for pattern in patterns['spark', engine]:
            expected = enlarge(active, pattern.support_Bhw.shape[-1])
            assert np.array_equal(pattern.support_Bhw, expected), (engine, pattern.name)


@pytest.mark.parametrize('arch', ['test_resnet', 'test_convnext'])
def test_what_the_decoder_of_black_mosaic_gets_has_no_mask_left(arch):
    """On the maps that the model itself hands to its decoder, without any graph."""
    model, active = build('black_mosaic', arch, 224).double().eval(), mask(1, 7)
    for norm in model.encoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
    layout, image = VisibleLayout(active), torch.randn(1, 3, 224, 224, dtype=torch.float64)
    pairs = zip(model.encode(image, layout), model.encode(torch.zeros_like(image), layout), strict=True)
    fractions = [(a != b).any(1).double().mean().item() for a, b in pairs]
    assert fractions[0] == 1.0 and min(fractions) > 20 / 49, 'deepest first'


@pytest.mark.parametrize('layers', [[99], [-1]])
def test_layers_that_do_not_exist_are_named(layers):
    with pytest.raises(InputError, match=f'layer {layers[0]} does not exist: the network has 10 conv'):
        mask_patterns(build().encoder, torch.randn(1, 3, 128, 128), mask(1), layers)


def test_unknown_statistics_are_refused():
    with pytest.raises(InputError, match="'both'"):
        reconstruct(build(), pixels(), mask(), statistics='both')
