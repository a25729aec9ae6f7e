"""What makes a detector compute in bfloat16 or in channels-last layout without changing what it computes."""

from collections.abc import Iterator

import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, MultiScaleDeformableAttention
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from torch import nn

_OPERATORS = (MultiScaleDeformableAttention, DeformConv2d, ModulatedDeformConv2d)


def prepare_detector(model: nn.Module, channels_last: bool = False) -> None:
    """Prepare a detector of mmdet for bfloat16 autocast, and for the channels-last layout; in place.

    Boxes are numbers up to 1333 that bfloat16 holds to 8 bits: heads compute in it, their outputs, and all that
    follows from them, are float32. mmcv's operators know no bfloat16 at all, and read memory as if it were
    contiguous, whatever the layout. Without autocast, in the plain layout, nothing changes.

    Args:
        model: anything; what has no backbone is left alone.
        channels_last: keep weights and images in that memory layout.
    """
    if not hasattr(model, 'backbone'):
        return
    for head in _heads(model):
        head.register_forward_hook(lambda _, __, output: _convert(output, _as_float32))
    for module in model.modules():
        if isinstance(module, BaseRoIExtractor):
            module.register_forward_pre_hook(lambda _, arguments: _convert(arguments, _for_operators))
        elif isinstance(module, _OPERATORS):
            module.forward = _in_float32(module.forward)
    if channels_last:
        model.to(memory_format=torch.channels_last)
        model.backbone.register_forward_pre_hook(
            lambda _, arguments: (arguments[0].contiguous(memory_format=torch.channels_last), *arguments[1:])
        )


def _heads(model: nn.Module) -> Iterator[nn.Module]:
    """What gives scores, boxes and masks.

    Of the heads of DETR and its heirs also the branches of each layer of the decoder: these add the box that a layer
    refines to the branch's output, in place and thus in its precision.
    """
    parts = dict(model.named_children())
    parts |= {f'roi_head.{name}': child for name, child in parts.pop('roi_head', nn.Module()).named_children()}
    for name, part in parts.items():
        if name.rpartition('.')[2].endswith('_head'):
            # The stages of a cascade are a list.
            yield from part if isinstance(part, nn.ModuleList) else [part]
            for branches in ('reg_branches', 'cls_branches'):
                yield from getattr(part, branches, ())


def _in_float32(forward):
    def wrapped(*arguments, **named):
        device = next(value.device for value in (*arguments, *named.values()) if torch.is_tensor(value))
        if not torch.is_autocast_enabled(device.type):
            return forward(*arguments, **named)
        with torch.autocast(device.type, enabled=False):
            return forward(
                *_convert(arguments, _for_operators),
                **{name: _convert(value, _for_operators) for name, value in named.items()},
            )

    return wrapped


def _convert(value, function):
    """The same with ``function`` of every tensor, in lists and tuples of any depth."""
    if torch.is_tensor(value):
        return function(value)
    return type(value)(_convert(part, function) for part in value) if isinstance(value, (list, tuple)) else value


def _as_float32(tensor):
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _for_operators(tensor):
    return tensor.float().contiguous() if tensor.is_floating_point() else tensor
