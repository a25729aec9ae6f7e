"""Whether the parts of a detector fit each other: told by the key of the config, before torch stumbles within them."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from mmdet.models.roi_heads.mask_heads import DynamicMaskHead, FCNMaskHead
from torch import nn

from pretrain.networks import evaluating
from spark_bench.errors import InputError
from spark_bench.models.vit import SparKViT

if TYPE_CHECKING:
    from mmengine.config import ConfigDict

# Side of the image that is sent through, a multiple of every backbone's stride.
_SIDE = 64
# What takes the maps of the neck, by the channels that it states for them.
_NECK = (
    'rpn_head.in_channels',
    'bbox_head.in_channels',
    'mask_head.in_channels',
    'roi_head.bbox_roi_extractor.out_channels',
    'roi_head.mask_roi_extractor.out_channels',
    'roi_head.bbox_head.in_channels',
    'roi_head.mask_head.in_channels',
)
# Strides of maps: whether each map needs one.
_STRIDES = {
    'rpn_head.anchor_generator.strides': True,
    'bbox_head.anchor_generator.strides': True,
    'bbox_head.strides': True,
    'roi_head.bbox_roi_extractor.featmap_strides': False,
    'roi_head.mask_roi_extractor.featmap_strides': False,
}


def first_input(cfg: 'ConfigDict') -> str:
    """The key, below ``model``, of the channels that whatever follows the backbone takes.

    That is the neck, or the first of several; a detector without one (Mask2Former) takes the maps of the backbone into
    its head.
    """
    neck = cfg.get('neck')
    if isinstance(neck, (list, tuple)):
        return 'neck.0.in_channels'
    return 'neck.in_channels' if neck else 'panoptic_head.in_channels'


def group_at(cfg: 'ConfigDict', key: str) -> 'ConfigDict | None':
    """The group of settings that holds a dotted key below ``model``; None where there is none."""
    return _first(cfg, key.rpartition('.')[0])


@torch.no_grad()
def check_shapes(model: nn.Module, cfg: 'ConfigDict') -> None:
    """Send a blank image through backbone and neck, and compare what each part gives with what the next one takes.

    Neither weights, statistics nor random states change.

    Args:
        model: detector of mmdet.
        cfg: the config it was built from, ``cfg.model`` of a recipe.

    Raises:
        InputError: naming the key of the config that does not fit.
    """
    with evaluating(model):
        with taking_small_images(model):
            maps = _check_backbone(model, cfg)
        if not cfg.get('neck'):
            return
        levels = model.neck(maps)
        channels = [map_BChw.shape[1] for map_BChw in levels]
        _check_strides(cfg, [map_BChw.shape[-1] for map_BChw in levels])
        for key in _NECK:
            # One number where all maps have the same; some heads (SSD, YOLO) state a list.
            wanted = channels[0] if len(set(channels)) == 1 else channels
            _demand(cfg, key, wanted, 'channels of the maps that model.neck gives (its out_channels)')
        if cfg.get('roi_head'):
            _check_rois(model, cfg)


@contextlib.contextmanager
def taking_small_images(model: nn.Module) -> Iterator[None]:
    """Within, a detector computes images as small as they are: a plain ViT pads them to those of its training."""
    backbone = model.backbone
    padded = isinstance(backbone, SparKViT)
    if padded:
        side, backbone.input_size = backbone.input_size, 0
    try:
        yield
    finally:
        if padded:
            backbone.input_size = side


def _check_backbone(model, cfg):
    """The maps that the backbone gives."""
    maps = model.backbone(next(model.parameters()).new_zeros(1, 3, _SIDE, _SIDE))
    found, key = [map_BChw.shape[1] for map_BChw in maps], first_input(cfg)
    is_list = any(isinstance(value, (list, tuple)) for _, value in _values(cfg, key))
    _demand(
        cfg, key, found if is_list else found[0], f'channels of the maps that the backbone {cfg.backbone.arch} gives'
    )
    return maps


def _check_strides(cfg, sides):
    levels = len(sides)
    for key, each in _STRIDES.items():
        for place, strides in _values(cfg, key):
            if not isinstance(strides, (list, tuple)):
                continue
            if not (levels if each else 1) <= len(strides) <= levels:
                raise InputError(
                    f'model.{place} is {list(strides)}, {len(strides)} of them, but model.neck gives '
                    f'{levels} maps (its num_outs): change either'
                )
            # What takes the finest maps alone states as many strides. Of the blank image's smallest maps, one pixel a
            # side, the stride cannot be told.
            wrong = [
                stride
                for stride, side in zip(strides, sides, strict=False)
                if side > 1 and not _is_part(stride) and not _same(stride, _SIDE // side)
            ]
            if wrong:
                true = [_SIDE // side if side > 1 else stride for stride, side in zip(strides, sides, strict=False)]
                raise InputError(
                    f'model.{place} is {list(strides)}: give {true}, the strides of the maps that model.neck gives'
                )


def _is_part(stride):
    """Whether a stride is no whole number: YOLACT states what fits its images of 550 pixels."""
    return isinstance(stride, float) and not stride.is_integer()


def _check_rois(model, cfg):
    side = _first(cfg, 'roi_head.bbox_roi_extractor.roi_layer.output_size')
    _demand(
        cfg,
        'roi_head.bbox_head.roi_feat_size',
        side,
        'side of what is cut out for boxes (model.roi_head.bbox_roi_extractor.roi_layer.output_size)',
    )
    side, width = (
        _first(cfg, f'roi_head.mask_roi_extractor.{key}') for key in ('roi_layer.output_size', 'out_channels')
    )
    heads = getattr(model.roi_head, 'mask_head', None)
    head = heads[0] if isinstance(heads, nn.ModuleList) else heads
    # QueryInst's takes what its queries found too.
    if isinstance(side, int) and isinstance(head, FCNMaskHead) and not isinstance(head, DynamicMaskHead):
        mask = head(next(head.parameters()).new_zeros(1, width, side, side))
        _demand(
            cfg,
            'train_cfg.rcnn.mask_size',
            mask.shape[-1],
            f'side of the masks that model.roi_head.mask_head makes of {side}x{side} '
            '(model.roi_head.mask_roi_extractor.roi_layer.output_size)',
        )


def _demand(cfg, key, wanted, what):
    for place, value in _values(cfg, key):
        if None not in (value, wanted) and not _same(value, wanted):
            raise InputError(f'model.{place} is {value}: give {wanted}, the {what}')


def _same(value, wanted):
    """Whether two numbers or lists are the same; a number stands for two equal sides."""
    value, wanted = (list(one) if isinstance(one, (list, tuple)) else one for one in (value, wanted))
    return value == wanted or value == [wanted, wanted] or [value, value] == wanted


def _values(cfg, key, place=''):
    """What stands under a dotted key, each with its own place: of heads that are a list, as a cascade's, every one."""
    if not key:
        yield place, cfg
        return
    part, _, rest = key.partition('.')
    if isinstance(cfg, (list, tuple)) and not part.isdigit():
        for number, stage in enumerate(cfg):
            yield from _values(stage, key, f'{place}.{number}')
        return
    child = None if cfg is None else cfg[int(part)] if isinstance(cfg, (list, tuple)) else cfg.get(part)
    yield from _values(child, rest, f'{place}.{part}'.lstrip('.'))


def _first(cfg, key):
    return next((value for _, value in _values(cfg, key)), None)


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
    try:
        with evaluating(network):
            network.forward_features(next(network.parameters()).new_zeros(1, 3, side, side))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        own = (getattr(network, 'pretrained_cfg', None) or {}).get('input_size')
        remedy = f'it is made for {own[-1]}' if own and own[-1] != side else 'give its own'
        raise InputError(f'{option} {side}: {arch} takes no images of that size ({reason}): {remedy}') from error
