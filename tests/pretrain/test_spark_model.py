"""The model against plain formulas of the paper."""

import math

import numpy as np
import pytest
import torch

from pretrain import ABLATIONS, InputError, VisibleLayout, build_spark, random_mask
from pretrain.densify import sincos_position_embedding

MODELS = [name for name, ablation in ABLATIONS.items() if ablation.pretrains]


def build(ablation='spark', **options):
    torch.manual_seed(0)
    return build_spark('test_resnet', 64, 0.5, ablation, decoder_width=64, **options)


def make_image(batch=2, seed=0):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('input_size, expected', [(224, 20), (160, 10), (128, 6)])
def test_every_image_keeps_the_same_number_of_patches(input_size, expected):
    grid = input_size // 32
    active = random_mask(64, grid, 0.6)
    assert active.dtype == torch.bool and active.shape == (64, 1, grid, grid)
    assert set(active.flatten(1).sum(1).tolist()) == {expected}
    shown = active.float().mean(0)
    assert shown.min() > 0 and shown.max() < 1


def test_masks_follow_their_generator():
    draws = [random_mask(4, 7, 0.6, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def plain_loss(image, prediction, active, everywhere):
    """Patch by patch in numpy, as the formula reads."""
    image, prediction = image.double().numpy(), prediction.double().numpy()
    errors = []
    for b in range(len(image)):
        for i in range(2):
            for j in range(2):
                if active[b, 0, i, j] and not everywhere:
                    continue
                cut = np.s_[b, :, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32]
                target = (image[cut] - image[cut].mean()) / math.sqrt(image[cut].var(ddof=1) + 1e-6)
                errors.append(((prediction[cut] - target) ** 2).mean())
    return np.mean(errors)


@pytest.mark.parametrize('ablation', ['spark', 'loss_on_all'])
def test_loss_is_the_mean_squared_error_to_normalised_patches(ablation):
    model, image = build(ablation).eval(), make_image()
    active = random_mask(2, 2, 0.5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        layout = model.mask(image, active)
        maps = model.densified(model.encode(image, layout), layout)
        prediction = model.unpatchify(model.decode(maps, image))
        loss = model(image, active)
    assert loss.item() == pytest.approx(plain_loss(image, prediction, active, ablation == 'loss_on_all'), rel=1e-6)


def test_patches_are_ordered_by_row_column_channel():
    image = torch.arange(2 * 3 * 64 * 64).view(2, 3, 64, 64).float()
    model = build()
    patches = model.patchify(image)
    assert patches.shape == (2, 4, 32 * 32 * 3)
    assert patches[1, 2, 3 * (5 * 32 + 7) + 1] == image[1, 1, 32 + 5, 7]
    assert torch.equal(model.unpatchify(patches), image)


def test_a_perfect_prediction_paints_the_image_back():
    from pretrain.spark import normalise_patches

    model, image = build(), make_image()
    perfect, _, _ = normalise_patches(model.patchify(image))
    active = random_mask(2, 2, 0.5)
    assert torch.allclose(model.paint(image, perfect, active), image, atol=1e-5)
    assert model.loss(image, perfect, active).item() == pytest.approx(0, abs=1e-10)


def test_visible_patches_are_pasted_unchanged():
    model, image = build(), make_image()
    active = random_mask(2, 2, 0.5)
    _, painted = model(image, active, return_reconstruction=True)
    visible = active.repeat_interleave(32, 2).repeat_interleave(32, 3).expand_as(image)
    assert torch.equal(painted[visible], image[visible])
    assert not torch.equal(painted[~visible], image[~visible])


@pytest.mark.parametrize('ablation', MODELS)
def test_every_ablation_trains_every_one_of_its_parameters(ablation):
    model = build(ablation)
    for module in model.modules():  # zero-initialised residual branches pass no gradient on
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    model(make_image(4), random_mask(4, 2, 0.5)).backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    # A scale whose map reaches the decoder no more still feeds the deeper ones, so nothing may be left out.
    assert without == []


def test_no_hierarchy_densifies_the_deepest_map_alone():
    assert len(build().densify) == 4 and len(build('no_hierarchy').densify) == 1


def test_black_mosaic_has_no_mask_token_and_sees_the_mask_vanish():
    model = build('black_mosaic')
    assert not any('mask_token' in name for name, _ in model.named_parameters())
    active = random_mask(2, 2, 0.5, torch.Generator().manual_seed(0))
    dense = model.encode(make_image(), VisibleLayout(active))[0]
    assert (dense[~active.expand_as(dense)] != 0).any(), 'the dense encoder must fill masked positions'
    sparse = build().encode(make_image(), VisibleLayout(active))[0]
    assert len(sparse) == active.sum(), 'the sparse one holds visible patches only'


def test_no_sparse_sees_masked_pixels_as_zero_only():
    model = build('no_sparse').eval()
    active = random_mask(2, 2, 0.5, torch.Generator().manual_seed(0))
    image = make_image()
    other = torch.where(active.repeat_interleave(32, 2).repeat_interleave(32, 3), image, make_image(seed=9))
    layout = VisibleLayout(active)
    for a, b in zip(model.encode(image, layout), model.encode(other, layout), strict=True):
        assert torch.equal(a, b)


def test_mask_tokens_fill_masked_positions():
    model = build().eval()
    active = random_mask(2, 2, 0.5, torch.Generator().manual_seed(0))
    layout = VisibleLayout(active)
    features = model.encode(make_image(), layout)[1]
    filled = layout.unpack(features, fill_C=model.densify[1].mask_token.view(-1))
    masked = (~active).repeat_interleave(2, 2).repeat_interleave(2, 3).squeeze(1)
    rows = filled.permute(0, 2, 3, 1)[masked]
    assert torch.equal(rows, model.densify[1].mask_token.view(1, -1).expand_as(rows))


def test_position_embedding_follows_its_formula():
    embedding = sincos_position_embedding(8, 3, 5)
    assert embedding.shape == (1, 8, 3, 5)
    omega = 1 / 10000 ** (np.arange(2) / 2)
    row, column = 2, 3
    waves = [np.sin(column * omega), np.cos(column * omega), np.sin(row * omega), np.cos(row * omega)]
    expected = np.concatenate(waves)
    assert np.allclose(embedding[0, :, row, column], expected, atol=1e-6)


def test_paper_sizes_of_the_decoder_and_the_projections():
    model = build_spark('resnet50')
    # 4·4·c² + c (transposed) + 9·c² + 2c + 9·c·c/2 + c (norms) for c = 768 … 48, and the last 1×1 to RGB.
    expected = sum(16 * c * c + c + 9 * c * c + 2 * c + 9 * c * c // 2 + c for c in (768, 384, 192, 96, 48))
    assert sum(p.numel() for p in model.decoder.parameters()) == expected + 24 * 3 + 3
    kernels = [(d.proj.in_channels, d.proj.out_channels, d.proj.kernel_size[0]) for d in model.densify]
    assert kernels == [(2048, 768, 1), (1024, 384, 3), (512, 192, 3), (256, 96, 3)]
    assert isinstance(build_spark('convnext_small').densify[0].proj, torch.nn.Identity)


@pytest.mark.parametrize(
    'options, named',
    [
        (dict(ablation='sparkk'), 'ablation'),
        (dict(ablation='scratch'), 'scratch'),
        (dict(engine='dense'), 'engine'),
        (dict(input_size=100), 'input_size'),
        (dict(mask_ratio=0.999), 'mask_ratio'),
        (dict(mask_ratio=0.0), 'mask_ratio'),
        (dict(decoder_width=31), 'decoder_width'),
        (dict(decoder_width=48.0), 'decoder_width'),
        (dict(drop_path_rate=-0.1), 'drop_path_rate'),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, named):
    with pytest.raises(InputError, match=named):
        build_spark(**{'arch': 'test_resnet', 'input_size': 64, **options})


def test_images_of_another_size_are_refused():
    with pytest.raises(InputError, match='input_size'):
        build()(torch.randn(1, 3, 96, 96))


def test_a_width_that_has_no_position_embedding_is_refused_before_the_first_step():
    build_spark('test_resnet', 64, ablation='ape', decoder_width=32)
    with pytest.raises(InputError, match='embedding of 6 channels.* give a decoder_width that is a multiple of 32'):
        build_spark('test_resnet', 64, ablation='ape', decoder_width=48)
