"""Networks for the tests of checkpoints: every tensor random, and a ConvNeXt written from the paper's formulas."""

import pytest
import torch
import torch.nn.functional as F


def randomise_tensors(model, seed=0):
    """Give every parameter and statistic a value of its own; layer scales, norms and variances stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        last = name.rsplit('.', 1)[-1]
        if last == 'running_var' or value.dim() == 1 and last in ('weight', 'gamma') or last == 'layer_scale':
            value.copy_(1 + 0.1 * noise.abs())
        else:
            value.copy_(noise * 0.5 / max(1, value[0].numel() if value.dim() > 1 else 1) ** 0.5)
    model.eval()  # returns nothing for OpenMMLab's networks
    return model


@pytest.fixture
def randomise():
    return randomise_tensors


def official_shapes(depths, widths, second=False):
    """Names and shapes of a ConvNeXt of Meta's, written down from its paper: stem, 2×2 downsampling, blocks."""
    shapes = {}

    def layer(name, *weight):
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = weight, weight[:1]

    layer('downsample_layers.0.0', widths[0], 3, 4, 4)
    layer('downsample_layers.0.1', widths[0])
    for i in (1, 2, 3):
        layer(f'downsample_layers.{i}.0', widths[i - 1])
        layer(f'downsample_layers.{i}.1', widths[i], widths[i - 1], 2, 2)
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for j in range(depth):
            block = f'stages.{i}.{j}'
            layer(f'{block}.dwconv', width, 1, 7, 7)
            layer(f'{block}.norm', width)
            layer(f'{block}.pwconv1', 4 * width, width)
            layer(f'{block}.pwconv2', width, 4 * width)
            if second:
                shapes[f'{block}.grn.gamma'] = shapes[f'{block}.grn.beta'] = (1, 1, 1, 4 * width)
            else:
                shapes[f'{block}.gamma'] = (width,)
    return shapes


def random_state(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def value(name, shape):
        noise = torch.randn(shape, generator=generator)
        if name.endswith('weight') and len(shape) > 1:
            return noise / max(1, noise[0].numel()) ** 0.5
        return 1 + 0.1 * noise.abs() if name.endswith(('weight', 'gamma', 'running_var')) else 0.1 * noise

    return {name: value(name, shape) for name, shape in shapes.items()}


def official_features(state, image_B3HW):
    """The four maps of a ConvNeXt (arXiv 2201.03545; with GRN, 2301.00808), straight from tensors in official names."""

    def norm(x_BChw, name):
        x_BhwC = x_BChw.permute(0, 2, 3, 1)
        mean, variance = x_BhwC.mean(-1, keepdim=True), x_BhwC.var(-1, unbiased=False, keepdim=True)
        x_BhwC = (x_BhwC - mean) / (variance + 1e-6).sqrt() * state[f'{name}.weight'] + state[f'{name}.bias']
        return x_BhwC.permute(0, 3, 1, 2)

    def block(x_BChw, name):
        y = F.conv2d(
            x_BChw, state[f'{name}.dwconv.weight'], state[f'{name}.dwconv.bias'], padding=3, groups=x_BChw.shape[1]
        )
        y = norm(y, f'{name}.norm').permute(0, 2, 3, 1)
        y = F.gelu(y @ state[f'{name}.pwconv1.weight'].T + state[f'{name}.pwconv1.bias'])
        if f'{name}.grn.gamma' in state:
            energy = y.square().sum((1, 2), keepdim=True).sqrt()
            y = (
                y
                + state[f'{name}.grn.beta']
                + state[f'{name}.grn.gamma'] * y * energy / (energy.mean(-1, keepdim=True) + 1e-6)
            )
        y = y @ state[f'{name}.pwconv2.weight'].T + state[f'{name}.pwconv2.bias']
        y = y * state[f'{name}.gamma'] if f'{name}.gamma' in state else y
        return x_BChw + y.permute(0, 3, 1, 2)

    maps, x = [], image_B3HW
    for i in range(4):
        first, second = f'downsample_layers.{i}.0', f'downsample_layers.{i}.1'
        if i == 0:
            x = norm(F.conv2d(x, state[f'{first}.weight'], state[f'{first}.bias'], stride=4), second)
        else:
            x = F.conv2d(norm(x, first), state[f'{second}.weight'], state[f'{second}.bias'], stride=2)
        j = 0
        while f'stages.{i}.{j}.norm.weight' in state:
            x = block(x, f'stages.{i}.{j}')
            j += 1
        maps.append(x)
    return maps


@pytest.fixture
def official():
    """``official.shapes``, ``official.state``, ``official.features``."""

    class Official:
        shapes = staticmethod(official_shapes)
        state = staticmethod(random_state)
        features = staticmethod(official_features)

    return Official


def authors_shapes(encoder, channels, width=768, batch_norm=False):
    """Names and shapes of the authors' with-decoder model around ``encoder`` (names and shapes).

    Written down from the description of the format: channels are those of the four maps, finest first.
    """
    shapes = {f'sparse_encoder.sp_cnn.{name}': shape for name, shape in encoder.items()}

    def norm(name, c):
        shapes[f'{name}.weight'] = shapes[f'{name}.bias'] = (c,)
        if batch_norm or 'dense_decoder' in name:
            shapes[f'{name}.running_mean'] = shapes[f'{name}.running_var'] = (c,)
            shapes[f'{name}.num_batches_tracked'] = ()

    for i in range(5):
        c = width // 2**i
        shapes[f'dense_decoder.dec.{i}.up_sample.weight'] = (c, c, 4, 4)
        shapes[f'dense_decoder.dec.{i}.up_sample.bias'] = (c,)
        shapes[f'dense_decoder.dec.{i}.conv.0.weight'] = (c, c, 3, 3)
        norm(f'dense_decoder.dec.{i}.conv.1', c)
        shapes[f'dense_decoder.dec.{i}.conv.3.weight'] = (c // 2, c, 3, 3)
        norm(f'dense_decoder.dec.{i}.conv.4', c // 2)
    shapes['dense_decoder.proj.weight'], shapes['dense_decoder.proj.bias'] = (3, width // 32, 1, 1), (3,)
    for i, c in enumerate(reversed(channels)):
        norm(f'densify_norms.{i}', c)
        d, kernel = width // 2**i, 3 if i else 1
        if i or c != d:
            shapes[f'densify_projs.{i}.weight'], shapes[f'densify_projs.{i}.bias'] = (d, c, kernel, kernel), (d,)
        shapes[f'mask_tokens.{i}'] = (1, c, 1, 1)
    shapes |= {'imn_m': (1, 3, 1, 1), 'imn_s': (1, 3, 1, 1), 'norm_black': (1, 3, 224, 224)}
    return shapes


@pytest.fixture
def authors():
    return authors_shapes
