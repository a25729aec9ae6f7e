"""What each kind of module does to visible patches: once packed, once as the plain definition.

Both tables are keyed by the exact type: a subclass may compute something else (``StdConv2d`` is a
``Conv2d`` with another weight), so it never inherits a counterpart silently.

A counterpart is ``function(module, x, layout) -> x``. For the *packed* one, ``x`` is ``x_NCbb`` (or
``x_NbbC`` between the permutes of a ConvNeXt block); for the *reference* one, ``x_BChw`` (``x_BhwC``)
with exact zeros at masked positions, and it must keep them zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm import layers
from torch import nn

from pretrain.errors import InputError
from pretrain.masking import expand_mask


@dataclass(frozen=True)
class Operation:
    """The sparse counterparts of one module type."""

    packed: Callable
    reference: Callable


MODULES: dict[type, Operation] = {}


def register(types, packed, reference):
    """Teach the sparse engines a module type.

    Args:
        types: a module class or several.
        packed: ``function(module, x_NCbb, layout) -> x_NCbb``.
        reference: ``function(module, x_BChw, layout) -> x_BChw``, zero at masked positions.
    """
    for kind in types if isinstance(types, (tuple, list)) else (types,):
        MODULES[kind] = Operation(packed, reference)


def _mask_like(x_BChw, layout):
    return expand_mask(layout.active_B1ff, *x_BChw.shape[-2:])


def _plain(module, x, layout):
    return module(x)


def _then_mask(module, x_BChw, layout):
    out = module(x_BChw)
    return out * _mask_like(out, layout)


def _then_mask_channels_last(module, x_BhwC, layout):
    out = module(x_BhwC)
    mask = expand_mask(layout.active_B1ff, *out.shape[1:3])
    return out * mask.permute(0, 2, 3, 1)



def _halo(module, block):
    """Positions a convolution or pooling reads before and after a patch of side ``block``."""
    spans = []
    sizes = zip(*(_pair(getattr(module, name, 1)) for name in ('kernel_size', 'stride', 'dilation')), strict=True)
    for axis, (kernel, stride, dilation) in enumerate(sizes):
        reach = dilation * (kernel - 1)
        before = reach // 2 if module.padding == 'same' else _pair(module.padding)[axis]
        if module.padding == 'valid':
            before = 0
        if block % stride:
            raise InputError(f'a stride of {stride} does not divide a patch of {block} positions: '
                             'choose mask patches that are a multiple of the total stride')
        spans.append((before, block - stride - before + reach - (block - 1)))
    if spans[0] != spans[1] or spans[0][0] < 0:
        raise InputError(f'{module} is not square: only square kernels, strides and paddings are supported')
    before, after = spans[0]
    if after < 0 and before:
        raise InputError(f'{module} pads more than its kernel reaches')
    return before, max(after, 0)


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _packed_conv(module, x_NCbb, layout):
    if module.padding_mode != 'zeros':
        raise InputError(f'{module}: only zero padding is supported')
    before, after = _halo(module, x_NCbb.shape[-1])
    # A large depthwise kernel on small patches reads mostly halo. There the dense map is cheaper: its
    # convolution has few multiply-adds, and no position is copied more than once.
    if module.groups == module.in_channels > 1 and 2 * (before + after) > x_NCbb.shape[-1]:
        return layout.pack(module(layout.unpack(x_NCbb)))
    padded = layout.gather_halo(x_NCbb, before, after)
    return F.conv2d(padded, module.weight, module.bias, module.stride, 0, module.dilation, module.groups)



def _packed_max_pool(module, x_NCbb, layout):
    if module.ceil_mode or module.return_indices:
        raise InputError(f'{module}: ceil_mode and return_indices are not supported')
    before, after = _halo(module, x_NCbb.shape[-1])
    padded = layout.gather_halo(x_NCbb, before, after, outside=float('-inf'))
    return F.max_pool2d(padded, module.kernel_size, module.stride, 0, module.dilation)


def _packed_avg_pool(module, x_NCbb, layout):
    if module.kernel_size == module.stride and module.padding == 0 and x_NCbb.shape[-1] % module.stride == 0:
        return module(x_NCbb)
    return layout.pack(module(layout.unpack(x_NCbb)))



def _reference_batch_norm(module, x_BChw, layout):
    """Batch norm over the visible positions, which it sees as so many pictures of one pixel."""
    visible_Bhw = _mask_like(x_BChw, layout).squeeze(1)
    rows_nC = x_BChw.permute(0, 2, 3, 1)[visible_Bhw]
    normed_nC = module(rows_nC[:, :, None, None])[:, :, 0, 0]
    out_BhwC = torch.zeros_like(x_BChw, dtype=normed_nC.dtype).permute(0, 2, 3, 1).contiguous()
    out_BhwC[visible_Bhw] = normed_nC
    return out_BhwC.permute(0, 3, 1, 2)



def _packed_drop_path(module, x, layout):
    if module.drop_prob == 0.0 or not module.training:
        return x
    keep_B111 = module(x.new_ones(layout.batch, 1, 1, 1))
    return x * keep_B111.index_select(0, layout.image_N)


register((nn.Conv2d,), _packed_conv, _then_mask)
register((nn.MaxPool2d,), _packed_max_pool, _then_mask)
register((nn.AvgPool2d,), _packed_avg_pool, _then_mask)
register((nn.BatchNorm2d, nn.SyncBatchNorm), _plain, _reference_batch_norm)
register((layers.DropPath,), _packed_drop_path, _plain)
register((layers.LayerNorm2d,), _plain, _then_mask)
register((nn.LayerNorm, layers.LayerNorm, nn.Linear), _plain, _then_mask_channels_last)
register((nn.Identity, nn.ReLU, nn.ReLU6, nn.GELU, layers.GELU, layers.GELUTanh, nn.SiLU, nn.Hardswish, nn.LeakyReLU,
          nn.Dropout), _plain, _plain)
