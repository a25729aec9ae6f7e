"""What each kind of module does to visible patches: once packed, once as the plain definition.

Both tables are keyed by the exact type: a subclass may compute something else (``StdConv2d`` is a
``Conv2d`` with another weight), so it never inherits a counterpart silently.

A counterpart is ``function(module, x, layout) -> x``. For the *packed* one, ``x`` is ``x_NCbb`` (or
``x_NbbC`` between the permutes of a ConvNeXt block); for the *reference* one, ``x_BChw`` (``x_BhwC``)
with exact zeros at masked positions, and it must keep them zero.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm import layers
from timm.layers.grn import GlobalResponseNorm
from timm.layers.norm_act import SyncBatchNormAct
from timm.layers.pool2d_same import MaxPool2dSame
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn

from pretrain.errors import InputError
from pretrain.masking import VisibleLayout, expand_mask
from pretrain.sparse.convolution import packed_convolution
from pretrain.sparse.pooling import packed_average_pool, packed_max_pool
from pretrain.sparse.stochastic_depth import draw_scale

Counterpart = Callable[[Any, torch.Tensor, VisibleLayout], torch.Tensor]


@dataclass(frozen=True)
class Operation:
    """The sparse counterparts of one module type."""

    packed: Counterpart
    reference: Counterpart


MODULES: dict[type, Operation] = {}


def register(types: type | tuple[type, ...] | list[type], packed: Counterpart, reference: Counterpart) -> None:
    """Teach the sparse engines a module type.

    Args:
        types: a module class or several.
        packed: ``function(module, x_NCbb, layout) -> x_NCbb``.
        reference: ``function(module, x_BChw, layout) -> x_BChw``, zero at masked positions.
    """
    for kind in types if isinstance(types, (tuple, list)) else (types,):
        MODULES[kind] = Operation(packed, reference)


def on_each_position(module: nn.Module, x: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
    """Packed counterpart of a module that treats every position alike and alone: nothing changes."""
    return module(x)


def on_dense_map(module: nn.Module, x_NCbb: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
    """Packed counterpart of any module that maps a dense map to a dense map: lay out, run, cut out."""
    return layout.pack(module(layout.unpack(x_NCbb)))


def then_mask(module: nn.Module, x_BChw: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
    """Reference counterpart of most modules: run on the dense map, multiply by the mask of the result's scale."""
    out = module(x_BChw)
    return out * expand_mask(layout.active_B1ff, *out.shape[-2:])


def then_mask_channels_last(module: nn.Module, x_BhwC: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
    """As :func:`then_mask`, for ``(B, h, w, C)``."""
    out = module(x_BhwC)
    return out * expand_mask(layout.active_B1ff, *out.shape[1:3]).permute(0, 2, 3, 1)


def _reference_batch_norm(module, x_BChw, layout):
    """Batch norm over the visible positions, which it sees as so many images of one pixel."""
    visible_Bhw = expand_mask(layout.active_B1ff, *x_BChw.shape[-2:]).squeeze(1)
    rows_nC = x_BChw.permute(0, 2, 3, 1)[visible_Bhw]
    normed_nC = module(rows_nC[:, :, None, None])[:, :, 0, 0]
    out_BhwC = torch.zeros_like(x_BChw, dtype=normed_nC.dtype).permute(0, 2, 3, 1).contiguous()
    out_BhwC[visible_Bhw] = normed_nC
    return out_BhwC.permute(0, 3, 1, 2)


def _packed_drop_path(module, x, layout):
    scale = draw_scale(module, x, layout)
    return x if scale is None else x * scale


def packed_per_image(module: nn.Module, x: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
    """Packed counterpart of a module that pools over a whole image and knows no neighbourhood.

    Squeeze-excite, GRN and group norm see the visible patches of an image laid end to end, as an image of its own:
    they average over the visible positions that way.
    """
    return _per_image(module, x, layout.counts)


def reference_per_image(module: nn.Module, x: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
    """The plain definition of the same: pick the visible positions of each image, run, put them back."""
    last = _channels_last(module)
    x_BhwC = x if last else x.permute(0, 2, 3, 1)
    visible_Bhw = expand_mask(layout.active_B1ff, *x_BhwC.shape[1:3]).squeeze(1)
    rows_nC = x_BhwC[visible_Bhw][:, None, None]
    positions = visible_Bhw.flatten(1).sum(1).tolist()
    out_n = _per_image(module, rows_nC if last else rows_nC.permute(0, 3, 1, 2), positions)
    out_BhwC = torch.zeros_like(x_BhwC, dtype=out_n.dtype)
    out_BhwC[visible_Bhw] = out_n.flatten(1)
    return out_BhwC if last else out_BhwC.permute(0, 3, 1, 2)


def _per_image(module, x_NCbb, counts):
    """Run ``module`` on the patches of each image in turn, or of all at once where they are equally many."""
    last = _channels_last(module)
    x_NbbC = x_NCbb if last else x_NCbb.permute(0, 2, 3, 1)
    _, high, wide, channels = x_NbbC.shape

    def run(patches_NbbC, images):
        strip = patches_NbbC.reshape(images, -1, wide, channels)
        out = module(strip) if last else module(strip.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out.reshape(-1, high, wide, channels)

    if len(set(counts)) == 1:
        out = run(x_NbbC, len(counts))
    else:
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()) and module.training:
            raise InputError(f'{type(module).__name__} holds a batch norm: its images must keep equally many patches')
        seen = [count for count in counts if count]
        out = torch.cat([run(patches, 1) for patches in x_NbbC.split(seen)])
    return out if last else out.permute(0, 3, 1, 2)


def _channels_last(module):
    return isinstance(module, GlobalResponseNorm) and module.channel_dim == -1


register((nn.Conv2d, layers.Conv2dSame), packed_convolution, then_mask)
register((nn.MaxPool2d,), packed_max_pool, then_mask)
register((nn.AvgPool2d,), packed_average_pool, then_mask)
register(
    (layers.BlurPool2d, layers.AvgPool2dSame, MaxPool2dSame, nn.ConvTranspose2d, nn.Upsample), on_dense_map, then_mask
)
register(
    (nn.BatchNorm2d, nn.SyncBatchNorm, layers.BatchNormAct2d, SyncBatchNormAct, layers.FrozenBatchNormAct2d),
    on_each_position,
    _reference_batch_norm,
)
register(
    (
        layers.SEModule,
        SqueezeExcite,
        layers.EcaModule,
        layers.EffectiveSEModule,
        GlobalResponseNorm,
        nn.GroupNorm,
        layers.GroupNorm,
        layers.GroupNorm1,
        layers.GroupNormAct,
        layers.GroupNorm1Act,
    ),
    packed_per_image,
    reference_per_image,
)
register((layers.DropPath,), _packed_drop_path, on_each_position)
register(
    (layers.LayerNorm2d, layers.LayerNormAct2d, layers.RmsNorm2d, layers.SimpleNorm2d), on_each_position, then_mask
)
register(
    (nn.LayerNorm, layers.LayerNorm, layers.RmsNorm, layers.SimpleNorm, nn.Linear),
    on_each_position,
    then_mask_channels_last,
)
# Activations of one argument that map zero to zero: masked positions stay zero without a mask.
register(
    (
        nn.Identity,
        nn.ReLU,
        nn.ReLU6,
        nn.GELU,
        layers.GELU,
        layers.GELUTanh,
        nn.SiLU,
        layers.Swish,
        nn.Hardswish,
        layers.HardSwish,
        nn.Mish,
        layers.Mish,
        nn.LeakyReLU,
        nn.ELU,
        nn.PReLU,
        nn.Tanh,
        layers.Tanh,
        nn.Dropout,
    ),
    on_each_position,
    on_each_position,
)
