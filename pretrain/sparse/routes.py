"""Which of its routes a convolution of packed patches takes: all give the same numbers, to rounding.

What was measured for a shape on a card decides; where nothing was, ``pretrain.sparse.convolution`` goes by its rule.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from pretrain.errors import InputError
from pretrain.toolchain import missing_for_gpus

ROUTES = ('halo', 'matrix', 'dense', 'kernel')


class Layer(NamedTuple):
    """What a measured choice holds for: a convolution's shape, on a card, in a precision.

    Attributes:
        card: as torch names it, or ``cpu``.
        dtype: in which it is computed, that of autocast where it is on.
        kernel, stride: of the convolution, in positions.
        groups: 1, or as many as channels.
        inputs, outputs: channels.
        side: b, of a patch on the input, in positions.
    """

    card: str
    dtype: torch.dtype
    kernel: int
    stride: int
    groups: int
    inputs: int
    outputs: int
    side: int


# A shape comes in here with the first card that was measured to do it faster by another route than the rule's, forward
# and backward at batch 128: tests/gpu/test_gpu_kernels.py tells. On an H200, in bfloat16, the rule's was the fastest
# for the depthwise layers of ConvNeXt-B, and at most 12 % slower for those of ResNet-50, in times that starting them
# decides.
MEASURED: dict[Layer, str] = {}

_HAS_TRITON = importlib.util.find_spec('triton') is not None
_forced: list[str] = []


@contextmanager
def forced_route(route: str) -> Iterator[None]:
    """Have every convolution that can take ``route`` take it, for tests and measurements.

    Raises:
        InputError: for an unknown route; and for ``kernel`` where Triton is missing.
    """
    if route not in ROUTES:
        raise InputError(f'unknown route {route!r}: choose one of {", ".join(ROUTES)}')
    if route == 'kernel' and not _HAS_TRITON:
        raise InputError('the kernel route needs Triton, which is not installed: pip install triton')
    _forced.append(route)
    try:
        yield
    finally:
        _forced.pop()


def preferred_route(module: nn.Conv2d, x_NCbb: torch.Tensor, possible: tuple[str, ...]) -> str | None:
    """The route of ``possible`` that is forced, or that was measured to be the fastest; None where neither is."""
    if _forced:
        return _forced[-1] if _forced[-1] in possible else None
    if not MEASURED:
        return None
    shape = (module.kernel_size[0], module.stride[0], module.groups, module.in_channels, module.out_channels)
    route = MEASURED.get(Layer(_card(x_NCbb.device), computed_dtype(x_NCbb), *shape, x_NCbb.shape[-1]))
    return route if route in possible and (route != 'kernel' or runs_kernels(x_NCbb.device)) else None


def computed_dtype(x_NCbb: torch.Tensor) -> torch.dtype:
    """In which a convolution of that map is computed: that of autocast where it is on."""
    kind = x_NCbb.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_NCbb.dtype


@torch.compiler.assume_constant_result
def runs_kernels(device: torch.device) -> bool:
    """Whether the gathering kernels can be compiled for that device: an NVIDIA GPU from Ampere on, with Triton."""
    if device.type != 'cuda' or torch.version.cuda is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return _lacks_nothing()


@cache
def _lacks_nothing():
    return missing_for_gpus() is None


@torch.compiler.assume_constant_result
def _card(device):
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type
