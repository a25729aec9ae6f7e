"""Whether the parts of a detector fit each other: told by the key of the config, before torch stumbles within them."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from spark_bench.errors import InputError

if TYPE_CHECKING:
    from mmengine.config import ConfigDict

# Side of the image that is sent through, a multiple of every backbone's stride.
_SIDE = 64
_NECK = ('rpn_head.in_channels', 'roi_head.bbox_roi_extractor.out_channels', 'roi_head.mask_roi_extractor.out_channels',
         'roi_head.bbox_head.in_channels', 'roi_head.mask_head.in_channels')


@torch.no_grad()
def check_shapes(model: nn.Module, cfg: 'ConfigDict') -> None:
    """Send a blank image through backbone and neck, and compare what each part gives with what the next one takes.

    Neither weights, statistics nor random states change.

    Args:
        model: Mask R-CNN of mmdet.
        cfg: the config it was built from, ``cfg.model`` of a recipe.

    Raises:
        InputError: naming the key of the config that does not fit.
    """
    training = model.training
    model.eval()
    try:
        channels, levels = _check_neck(model, cfg)
        _check_levels(cfg, levels)
        for key in _NECK:
            _demand(cfg, key, channels, 'channels of the maps that model.neck gives (its out_channels)')
        _check_heads(model, cfg, channels)
    finally:
        model.train(training)


def _check_neck(model, cfg):
    """``(channels, number)`` of the neck's maps."""
    maps = model.backbone(next(model.parameters()).new_zeros(1, 3, _SIDE, _SIDE))
    found = [map_BChw.shape[1] for map_BChw in maps]
    wanted = cfg.neck.get('in_channels')
    _demand(cfg, 'neck.in_channels', found if isinstance(wanted, (list, tuple)) else found[0],
            f'channels of the maps that the backbone {cfg.backbone.arch} gives')
    features = model.neck(maps)
    return features[0].shape[1], len(features)


def _check_levels(cfg, levels):
    for key, least in (('rpn_head.anchor_generator.strides', levels),
                       ('roi_head.bbox_roi_extractor.featmap_strides', 1),
                       ('roi_head.mask_roi_extractor.featmap_strides', 1)):
        strides = _value(cfg, key)
        if strides is not None and not least <= len(strides) <= levels:
            raise InputError(f'model.{key} is {list(strides)}, {len(strides)} of them, but model.neck gives {levels} '
                             'maps (its num_outs): change either')


def _check_heads(model, cfg, channels):
    side = _value(cfg, 'roi_head.bbox_roi_extractor.roi_layer.output_size')
    _demand(cfg, 'roi_head.bbox_head.roi_feat_size', side,
            'side of what is cut out for boxes (model.roi_head.bbox_roi_extractor.roi_layer.output_size)')
    side = _value(cfg, 'roi_head.mask_roi_extractor.roi_layer.output_size')
    if isinstance(side, int):
        head = model.roi_head.mask_head
        mask = head(next(head.parameters()).new_zeros(1, channels, side, side))
        _demand(cfg, 'train_cfg.rcnn.mask_size', mask.shape[-1],
                f'side of the masks that model.roi_head.mask_head makes of {side}x{side} '
                '(model.roi_head.mask_roi_extractor.roi_layer.output_size)')


def _demand(cfg, key, wanted, what):
    value = _value(cfg, key)
    if None not in (value, wanted) and not _same(value, wanted):
        raise InputError(f'model.{key} is {value}: give {wanted}, the {what}')


def _same(value, wanted):
    """Whether two numbers or lists are the same; a number stands for two equal sides."""
    value, wanted = (list(one) if isinstance(one, (list, tuple)) else one for one in (value, wanted))
    return value == wanted or value == [wanted, wanted] or [value, value] == wanted


def _value(cfg, key):
    """The value under a dotted key; None where the config leaves it to the class."""
    for part in key.split('.'):
        cfg = None if cfg is None else cfg.get(part)
    return cfg


@torch.no_grad()
def check_size(network: nn.Module, arch: str, side: int, option: str) -> None:
    """Send a blank image through a classification network: transformers may take one size alone.

    Neither weights, statistics nor random states change.

    Args:
        network: of timm.
        arch: its name.
        side: of the images in pixels.
        option: that says so, for the message.

    Raises:
        InputError: with the size that the network is made for.
    """
    training = network.training
    network.eval()
    try:
        network.forward_features(next(network.parameters()).new_zeros(1, 3, side, side))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        own = (getattr(network, 'pretrained_cfg', None) or {}).get('input_size')
        remedy = f'it is made for {own[-1]}' if own and own[-1] != side else 'give its own'
        raise InputError(f'{option} {side}: {arch} takes no images of that size ({reason}): {remedy}') from error
    finally:
        network.train(training)
