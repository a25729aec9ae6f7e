"""What makes a detector compute in bfloat16 or in channels-last layout without changing what it computes."""

import torch
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from torch import nn

__all__ = ['prepare_detector']


def prepare_detector(model: nn.Module, channels_last: bool = False) -> None:
    """Prepare a two-stage detector of mmdet for bfloat16 autocast, and for the channels-last layout; in place.

    Boxes are numbers up to 1333 that bfloat16 holds to 8 bits: heads compute in it, their outputs, and all that
    follows from them, are float32. mmcv's operators know no bfloat16 at all, and read memory as if it were
    contiguous, whatever the layout. Without autocast, in the plain layout, nothing changes.

    Args:
        model: anything; what has no backbone and no RoI head is left alone.
        channels_last: keep weights and images in that memory layout.
    """
    if not hasattr(model, 'backbone') or not hasattr(model, 'roi_head'):
        return
    heads = [model.rpn_head, model.roi_head.bbox_head, getattr(model.roi_head, 'mask_head', None)]
    for head in filter(None, heads):
        head.register_forward_hook(lambda _, __, output: _convert(output, _as_float32))
    for module in model.modules():
        if isinstance(module, BaseRoIExtractor):
            module.register_forward_pre_hook(lambda _, arguments: _convert(
                arguments, lambda tensor: tensor.float().contiguous()))
    if channels_last:
        model.to(memory_format=torch.channels_last)
        model.backbone.register_forward_pre_hook(
            lambda _, arguments: (arguments[0].contiguous(memory_format=torch.channels_last), *arguments[1:]))


def _convert(value, function):
    """The same with ``function`` of every tensor, in lists and tuples of any depth."""
    if torch.is_tensor(value):
        return function(value)
    return type(value)(_convert(part, function) for part in value) if isinstance(value, (list, tuple)) else value


def _as_float32(tensor):
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
