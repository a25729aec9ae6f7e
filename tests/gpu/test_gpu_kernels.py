"""The gathering kernels on a GPU: against torch's dense convolution in float64, and their time beside eager routes."""

import copy
from functools import partial
from statistics import median

import pytest
import torch
from convolution_cases import CASES, KINDS, compute, encode, exact
from torch import nn

from pretrain import VisibleLayout, random_mask
from pretrain.encoder import create_network
from pretrain.sparse.convolution import packed_convolution, window_of
from pretrain.sparse.filled import filled_convolution
from pretrain.sparse.routes import MEASURED, Layer, forced_route

pytest.importorskip('triton', reason='Triton is not installed: it comes with torch on Linux')
pytestmark = pytest.mark.gpu
# Whether factors are rounded to TF32, the type, and the tolerance as a share of the exact tensor's norm.
PRECISIONS = {
    'float32': (False, torch.float32, 1e-5),
    'float32 with TF32': (True, torch.float32, 2e-3),
    'bfloat16': (False, torch.bfloat16, 1e-2),
}
ARCHS, BATCH, GRID, MASK_RATIO, ROUNDS = ('resnet50', 'convnext_small', 'convnext_base'), 128, 7, 0.6, 9


@pytest.fixture(params=PRECISIONS)
def precision(request):
    tf32, dtype, tolerance = PRECISIONS[request.param]
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
        yield request.param, dtype, tolerance


def difference(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize('name', CASES)
def test_kernels_give_the_masked_dense_convolution(name, precision):
    _, dtype, tolerance = precision
    found, expected = compute(CASES[name], dtype, 'kernel', 'cuda'), exact(CASES[name], dtype, 'cuda')
    errors = {kind: difference(found[kind], expected[kind]) for kind in KINDS}
    assert max(errors.values()) < tolerance, errors


def test_an_encoder_by_kernels_gives_the_maps_and_gradients_of_the_eager_one(precision, report):
    name, dtype, tolerance = precision
    pairs = zip(encode('kernel', dtype, 'cuda'), encode('halo', torch.float64, 'cuda'), strict=True)
    # The bias before a batch norm has no gradient.
    worst = max(float((found - expected).norm() / max(expected.norm(), 1.0)) for found, expected in pairs)
    report(f'encoder by kernels against float64, {name}', f'maps and gradients differ by at most {worst:.0e}')
    assert worst < 10 * tolerance


@pytest.mark.parametrize('name', ['3x3, stride 2', '2x2 in several tiles each way', 'depthwise 7x7'])
def test_the_same_input_gives_the_same_bits(name):
    first, second = (compute(CASES[name], torch.bfloat16, 'kernel', 'cuda') for _ in range(2))
    assert all(torch.equal(first[kind], second[kind]) for kind in KINDS)


def test_the_matrix_of_all_that_is_read_never_exists(report):
    """Of a 3×3 convolution it is nine times the map; forward and backward make three maps in all."""
    layout = VisibleLayout(random_mask(BATCH, GRID, MASK_RATIO), 'cuda')
    module = nn.Conv2d(64, 64, 3, padding=1, bias=False).to('cuda', torch.bfloat16)
    maps = {}
    for route in ('kernel', 'matrix'):
        x_NCbb = packed(64, 8, layout, torch.bfloat16)
        for _ in range(2):  # the tables are made in the first
            x_NCbb.grad = module.weight.grad = None
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            with forced_route(route):
                packed_convolution(module, x_NCbb, layout).sum().backward()
        maps[route] = (torch.cuda.max_memory_allocated() - before) / (x_NCbb.numel() * x_NCbb.element_size())
    report('memory of a 3×3 convolution, forward and backward', f'{maps} times its map, in bfloat16')
    assert maps['kernel'] < 5 and maps['matrix'] > 9


def layers(arch):
    """The convolutions of a network that a kernel can compute: from their shape, as a ``Layer`` ends, to a module."""
    network, found = create_network(arch).eval(), {}

    def note(module, inputs, output):
        side, window = inputs[0].shape[-1], (module.kernel_size[0], module.stride[0])
        if window != (1, 1):
            found[(*window, module.groups, module.in_channels, module.out_channels, side)] = module

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    return found


def milliseconds(functions):
    """Medians of several rounds in which each function has its turn."""
    times = {name: [] for name in functions}
    for turn in range(ROUNDS + 2):
        for name, function in functions.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            function()
            end.record()
            end.synchronize()
            if turn >= 2:
                times[name].append(start.elapsed_time(end))
    return {name: median(values) for name, values in times.items()}


def told(times):
    return ', '.join(f'{name} {time:.3f} ms' for name, time in times.items())


def packed(channels, side, layout, dtype):
    x_NCbb = torch.randn(layout.visible, side, side, channels, device='cuda', dtype=dtype)
    return x_NCbb.permute(0, 3, 1, 2).requires_grad_()


@pytest.mark.timeout(600)
@pytest.mark.parametrize('precision', ['float32 with TF32', 'bfloat16'], indirect=True)
@pytest.mark.parametrize('arch', ARCHS)
def test_the_time_of_each_route_by_layer(arch, precision, report, card):
    """Forward and backward. What comes out is what ``MEASURED`` is filled from: its choices must not be slow ones."""
    name, dtype, tolerance = precision
    layout = VisibleLayout(random_mask(BATCH, GRID, MASK_RATIO), 'cuda')
    for shape, module in layers(arch).items():
        module = copy.deepcopy(module).to('cuda', dtype)
        x_NCbb = packed(module.in_channels, shape[-1], layout, dtype)
        grads = {}

        def step(route, module=module, x_NCbb=x_NCbb, grads=grads):
            module.zero_grad()
            x_NCbb.grad = None
            with forced_route(route):
                out = packed_convolution(module, x_NCbb, layout)
            out.backward(torch.ones_like(out))
            grads[route] = (out.detach(), x_NCbb.grad, module.weight.grad)

        eager = ('halo', 'dense') if module.groups > 1 else ('halo', 'matrix')
        times = milliseconds({route: partial(step, route) for route in (*eager, 'kernel')})
        fastest = min(eager, key=times.get)
        layer = Layer(card, dtype, *shape)
        report(
            f'{arch}, {layer}, {name}',
            f'{told(times)}: kernel {times[fastest] / times["kernel"]:.2f} times as fast as {fastest}',
        )
        for found, expected in zip(grads['kernel'], grads[fastest], strict=True):
            assert difference(found, expected.double()) < 2 * tolerance, layer
        if layer in MEASURED:
            assert times[MEASURED[layer]] < 1.1 * min(times.values()), layer


@pytest.mark.timeout(600)
@pytest.mark.parametrize('arch', ARCHS[::2])
def test_the_time_of_each_tile_by_layer(arch, report):
    """Of the products of layers of stride 1, in bfloat16: whether the first tile is the best of its list."""
    from pretrain.sparse.gather import kernels
    from pretrain.sparse.gather.functions import forward_reading

    layout = VisibleLayout(random_mask(BATCH, GRID, MASK_RATIO), 'cuda')
    for (kernel, stride, groups, channels, outputs, side), module in layers(arch).items():
        if stride > 1:
            continue
        window = window_of(module, side)
        reading = forward_reading(layout.halo_table(side, *window[3:]), side, window)

        def random(*shape):
            return torch.randn(shape, device='cuda', dtype=torch.bfloat16)

        x_nC, grad_mO = random(reading.outputs, channels), random(reading.outputs, outputs)
        if groups > 1:
            forward = partial(kernels.convolve_depthwise, x_nC, random(kernel * kernel, channels), None, reading)
            backward = partial(kernels.depthwise_weight_gradient, x_nC, grad_mO, reading)
            trials = [(forward, kernels.DEPTHWISE_TILES), (backward, kernels.DEPTHWISE_WEIGHT_TILES)]
        else:
            forward = partial(kernels.convolve, x_nC, random(kernel * kernel, channels, outputs), None, reading)
            backward = partial(kernels.weight_gradient, x_nC, grad_mO, reading)
            trials = [(forward, kernels.PRODUCT_TILES), (backward, kernels.WEIGHT_TILES)]
        for function, tiles in trials:
            name = (
                f'{arch}, {function.func.__name__}, {channels} to {outputs} channels, {side}x{side}, bfloat16, by tile'
            )
            report(name, told(milliseconds({str(tuple(tile)): partial(function, tile) for tile in tiles})))
            first, *others = [function(tile).double() for tile in tiles]
            assert all(difference(other, first) < 1e-2 for other in others), name


@pytest.mark.parametrize('precision', ['float32 with TF32', 'bfloat16'], indirect=True)
@pytest.mark.parametrize('channels, width, side', [(256, 96, 8), (512, 192, 4), (1024, 384, 2)])
def test_densify_by_visible_positions_beside_the_filled_map(channels, width, side, precision, report):
    """Forward and backward of a ResNet-50's projections; a CPU multiplies visible positions alone, a GPU not yet."""
    name, dtype, tolerance = precision
    layout = VisibleLayout(random_mask(BATCH, GRID, MASK_RATIO), 'cuda')
    module = nn.Conv2d(channels, width, 3, padding=1).to('cuda', dtype)
    x_NCbb, fill_C = packed(channels, side, layout, dtype), torch.randn(channels, device='cuda', dtype=dtype)
    ways = {
        'visible': lambda: filled_convolution(module, x_NCbb, fill_C, layout),
        'filled': lambda: module(layout.unpack(x_NCbb, fill_C)),
    }
    found = {}

    def step(way):
        x_NCbb.grad = module.weight.grad = None
        out = ways[way]()
        out.backward(out.detach())
        found[way] = (out.detach(), x_NCbb.grad, module.weight.grad)

    times = milliseconds({way: partial(step, way) for way in ways})
    report(f'densify, 3x3, {channels} to {width} channels, {side}x{side}, {name}', told(times))
    for ours, theirs in zip(found['visible'], found['filled'], strict=True):
        assert difference(ours, theirs.double()) < 3 * tolerance
