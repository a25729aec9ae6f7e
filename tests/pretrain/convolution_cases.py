"""Convolutions of packed patches, computed by any route, and exactly: by torch on the masked dense map in float64.

Run as a program under TRITON_INTERPRET=1 it computes them by the kernels on the CPU, and keeps the results in the file
that its argument names: all with ``rare`` behind it, or those of every run of the tests.
"""

import sys
from typing import NamedTuple

import torch
from timm.layers import Conv2dSame
from torch import nn

from pretrain import VisibleLayout
from pretrain.encoder import build_encoder
from pretrain.sparse.convolution import packed_convolution
from pretrain.sparse.routes import forced_route

KINDS = ('output', 'x gradient', 'weight gradient', 'bias gradient')


class Case(NamedTuple):
    """A convolution, the side of the patches it reads, and how many of each image's nine patches are visible."""

    inputs: int
    outputs: int
    kernel: int
    side: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    same: bool = False
    visible: tuple[int, ...] = (3, 0, 7)


CASES = {
    '3x3': Case(5, 7, 3, side=2),
    '3x3, no multiple of a tile': Case(33, 17, 3, side=2, visible=(9, 8)),
    '3x3, patches of one position': Case(16, 16, 3, side=1),
    '3x3, one visible patch': Case(8, 8, 3, side=1, visible=(0, 1)),
    '3x3, stride 2': Case(6, 10, 3, side=4, stride=2),
    '3x3, stride 4': Case(6, 10, 3, side=4, stride=4),
    '3x3, dilation 2': Case(6, 10, 3, side=2, dilation=2),
    '3x3, dilation 3, stride 2': Case(6, 10, 3, side=2, stride=2, dilation=3),
    '1x1, stride 2': Case(9, 20, 1, side=2, stride=2),
    '2x2, stride 2': Case(8, 12, 2, side=4, stride=2),
    '7x7, stride 2': Case(3, 8, 7, side=4, stride=2, visible=(1, 2)),
    '3x3, stride 2, padded on one side': Case(4, 6, 3, side=4, stride=2, same=True),
    '2x2, padded on one side': Case(4, 6, 2, side=2, same=True),
    '2x2 in several tiles each way': Case(66, 65, 2, side=2, same=True, visible=(9, 9, 9, 8)),
    'depthwise 7x7': Case(20, 20, 7, side=4, groups=20, visible=(2, 0, 1)),
    'depthwise 7x7, patches of one position': Case(16, 16, 7, side=1, groups=16),
    'depthwise 3x3 in several tiles each way': Case(70, 70, 3, side=2, groups=70, visible=(9, 8)),
    'depthwise 3x3, stride 2': Case(9, 9, 3, side=4, stride=2, groups=9),
    'depthwise 5x5, dilation 2': Case(9, 9, 5, side=2, dilation=2, groups=9),
    'depthwise 9x9, offsets of two tiles': Case(16, 16, 9, side=2, groups=16, visible=(1, 2)),
    'depthwise 5x5, stride 2, padded on one side': Case(9, 9, 5, side=4, stride=2, groups=9, same=True),
}
# Enough in float32 and bfloat16 for the interpreter, which is slow; a GPU computes all.
SAMPLED = ('3x3', '3x3, stride 2', 'depthwise 3x3, stride 2')
INTERPRETED = [(name, torch.float64) for name in CASES]
INTERPRETED += [(name, dtype) for dtype in (torch.float32, torch.bfloat16) for name in SAMPLED]
# Half of the interpreter's time, and of each kind of convolution another case stays.
RARE = [
    (name, torch.float64)
    for name in (
        '3x3, stride 4',
        '3x3, dilation 3, stride 2',
        '7x7, stride 2',
        '3x3, stride 2, padded on one side',
        '2x2 in several tiles each way',
        'depthwise 7x7',
        'depthwise 5x5, dilation 2',
    )
]
# Norm of the difference to the exact tensor, as a share of the exact one's.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 1e-2}


def make(case, dtype, device='cpu'):
    """``(module, x_NCbb, grad of its output, layout)``: in float64, of values that ``dtype`` can hold."""
    draw = torch.Generator().manual_seed(0)
    active_BL = torch.stack([torch.randperm(9, generator=draw) < count for count in case.visible])
    layout = VisibleLayout(active_BL.view(-1, 1, 3, 3), device)
    padding = {} if case.same else {'padding': case.dilation * (case.kernel - 1) // 2}
    module = (Conv2dSame if case.same else nn.Conv2d)(
        case.inputs, case.outputs, case.kernel, case.stride, dilation=case.dilation, groups=case.groups, **padding
    )

    def random(*shape):
        return torch.randn(shape, generator=draw).to(dtype).double().to(device)

    for parameter in module.parameters():
        parameter.data = random(*parameter.shape)
    out = case.side // case.stride
    x_NCbb = random(layout.visible, case.inputs, case.side, case.side)
    return module, x_NCbb, random(layout.visible, case.outputs, out, out), layout


def compute(case, dtype, route, device='cpu'):
    """The tensors of ``KINDS``, by a route of the packed convolution."""
    module, x_NCbb, grad, layout = make(case, dtype, device)
    module.to(dtype)
    x_NCbb = x_NCbb.to(dtype).requires_grad_()
    with forced_route(route):
        out = packed_convolution(module, x_NCbb, layout)
    return _with_gradients(out, x_NCbb, module, grad.to(dtype))


def exact(case, dtype, device='cpu'):
    """The same by torch's dense convolution of the masked map, in float64."""
    module, x_NCbb, grad, layout = make(case, dtype, device)
    x_NCbb.requires_grad_()
    out = layout.pack(module(layout.unpack(x_NCbb)))
    return _with_gradients(out, x_NCbb, module, grad)


def _with_gradients(out, x_NCbb, module, grad):
    out.backward(grad)
    tensors = (out.detach(), x_NCbb.grad, module.weight.grad, module.bias.grad)
    return dict(zip(KINDS, tensors, strict=True))


class Pyramid(nn.Module):
    """A small network of both kinds of convolution, and of a norm and an activation, whose result is made again."""

    channels, strides = [6, 6, 6], [2, 4, 8]

    def __init__(self):
        super().__init__()
        self.downs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 6, 6, 3, 2, 1) for i in range(3))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1, groups=groups)) for groups in (1, 6, 1)
        )

    def forward(self, x):
        maps = []
        for down, block in zip(self.downs, self.blocks, strict=True):
            x = down(x)
            x = x + block(x)
            maps.append(x)
        return maps


def encode(route, dtype, device='cpu'):
    """Maps and gradients of a whole encoder: in float64, or by autocast in another type."""
    torch.manual_seed(0)
    encoder = build_encoder(Pyramid()).to(device, torch.float64)
    image = torch.randn(2, 3, 16, 16, dtype=torch.float64).to(device)
    layout = VisibleLayout(torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0]], dtype=torch.bool).view(2, 1, 2, 2), device)
    if dtype != torch.float64:
        encoder, image = encoder.float(), image.float()
    with forced_route(route), torch.autocast(device, dtype, dtype not in (torch.float64, torch.float32)):
        maps = encoder(image, layout)
    sum(x.double().square().sum() for x in maps).backward()
    return [x.detach() for x in maps] + [parameter.grad for parameter in encoder.parameters()]


def _multiply_bfloat16():
    """Triton's interpreter holds bfloat16 as its bits, and its matrix product multiplies those as whole numbers."""
    import numpy
    from triton.runtime.interpreter import InterpreterBuilder

    product = InterpreterBuilder.create_dot

    def values(handle):
        if str(handle.dtype.scalar) == 'bf16':
            handle.data = (handle.data.astype(numpy.uint32) << 16).view(numpy.float32)
        return handle

    InterpreterBuilder.create_dot = lambda self, a, b, *rest: product(self, values(a), values(b), *rest)


def _interpret(path, cases):
    torch.set_num_threads(1)
    _multiply_bfloat16()
    found = {(name, dtype): compute(CASES[name], dtype, 'kernel') for name, dtype in cases}
    found |= {('encoder', dtype): encode('kernel', dtype) for dtype in (torch.float64, torch.bfloat16)}
    torch.save(found, path)


if __name__ == '__main__':
    _interpret(sys.argv[1], [case for case in INTERPRETED if 'rare' in sys.argv[2:] or case not in RARE])
