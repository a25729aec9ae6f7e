"""Pooling on visible patches."""

import torch
import torch.nn.functional as F
from timm.layers import to_2tuple
from torch import nn
from torch.autograd.function import once_differentiable

from pretrain.errors import InputError
from pretrain.masking import VisibleLayout
from pretrain.sparse.convolution import window_of
from pretrain.sparse.halo import fold_halo, gather_halo


def packed_max_pool(module: nn.MaxPool2d, x_NCbb: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
    """Max-pool a packed map. Masked neighbours count as 0, as they do on the masked dense map; the rim as -inf.

    Raises:
        InputError: where the stride does not divide the patch, or indices are asked for.
    """
    if module.return_indices:
        raise InputError(f'{module}: return_indices is not supported')
    window = None if module.ceil_mode else window_of(module, x_NCbb.shape[-1])
    if window is None:
        return layout.pack(module(layout.unpack(x_NCbb)))
    _, _, _, before, after = window
    table = layout.halo_table(x_NCbb.shape[-1], before, after) if before or after else None
    return _MaxPool.apply(x_NCbb, table, window)


def packed_average_pool(module: nn.AvgPool2d, x_NCbb: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
    """Average-pool a packed map. Masked neighbours count as 0, as they do on the masked dense map."""
    strides = to_2tuple(module.stride)
    patchwise = (
        to_2tuple(module.kernel_size) == strides
        and not any(to_2tuple(module.padding))
        and not any(x_NCbb.shape[-1] % stride for stride in strides)
    )
    return module(x_NCbb) if patchwise else layout.pack(module(layout.unpack(x_NCbb)))


class _MaxPool(torch.autograd.Function):
    """Keeps the patches alone; halos and the places of the maxima are found again to go back."""

    @staticmethod
    def forward(ctx, x_NCbb, table, window):
        kernel, stride, dilation, _, _ = window
        ctx.save_for_backward(x_NCbb, table)
        ctx.window = window
        return F.max_pool2d(gather_halo(x_NCbb, table, float('-inf')), kernel, stride, 0, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_NCbb):
        kernel, stride, dilation, before, after = ctx.window
        x_NCbb, table = ctx.saved_tensors
        padded = gather_halo(x_NCbb, table, float('-inf'))
        _, places = F.max_pool2d(padded, kernel, stride, 0, dilation, return_indices=True)
        grad_padded = torch.ops.aten.max_pool2d_with_indices_backward(
            grad_NCbb, padded, [kernel] * 2, [stride] * 2, [0, 0], [dilation] * 2, False, places
        )
        return fold_halo(grad_padded, table, before, after), None, None
