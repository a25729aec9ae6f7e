"""Networks in timm's registry: short names of the usual transformers, and small networks for small images.

Importing this module registers them: what takes a name of timm then takes these.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from timm.models import register_model
from torch import nn
from torch.overrides import TorchFunctionMode

# From name to timm's name, what differs from that network, and the side of its images in pixels.
_NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    **{f'vit_{size}': (f'vit_{size}_patch16_224', {}, 224) for size in ('tiny', 'small', 'base', 'large')},
    **{f'swin_{size}': (f'swin_{size}_patch4_window7_224', {}, 224) for size in ('tiny', 'small', 'base', 'large')},
    # 1.2 million parameters.
    'vit_mini': (
        'vit_tiny_patch16_224',
        dict(img_size=96, embed_dim=128, depth=6, num_heads=4, dynamic_img_size=True),
        96,
    ),
    # 2.3 million.
    'swin_mini': (
        'swin_tiny_patch4_window7_224',
        dict(img_size=96, window_size=3, embed_dim=32, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8)),
        96,
    ),
    # One ConvNeXt in three widths: 0.3, 0.6 and 1.8 million.
    **{
        f'convnext_mini_{size}': (
            'convnext_tiny',
            dict(depths=(1, 1, 3, 1), dims=tuple(width * 2**stage for stage in range(4))),
            96,
        )
        for size, width in (('s', 16), ('m', 24), ('l', 40))
    },
}


def full_name(name: str) -> str:
    """timm's own name of a network that has a short one here; any other name as it is."""
    full, differences, _ = _NETWORKS.get(name, (name, {}, 0))
    return name if differences else full


def _register(name, full, differences, side):
    def build(pretrained: bool = False, **arguments: Any) -> nn.Module:
        network = timm.create_model(full, pretrained=pretrained and not differences, **{**differences, **arguments})
        own = {'architecture': full_name(name), 'input_size': (3, side, side)}
        network.pretrained_cfg = {**network.pretrained_cfg, **own}
        return network

    build.__name__ = name
    register_model(build)


for _name, _network in _NETWORKS.items():
    _register(_name, *_network)


@contextlib.contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Within, models are in evaluation mode; afterwards each of their modules is in the mode that it was in."""
    modes = {module: module.training for model in models for module in model.modules()}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


# What initialises a parameter in place.
_FILLING = {
    getattr(torch.Tensor, f'{name}_') for name in ['normal', 'uniform', 'erfinv', 'clamp', 'fill', 'zero', 'mul', 'add']
}


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where they would be filled with numbers."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function in _FILLING and not any(isinstance(value, torch.Tensor) for value in args[1:]):
            return args[0]
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Networks built within have tensors of their shapes, and neither memory nor values: for looking at their names.

    That is torch's device ``meta``, where initialising nothing would take most of the time.
    """
    with torch.device('meta'), _Unfilled():
        yield
