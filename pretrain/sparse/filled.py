"""A convolution of the dense map that packed patches make where every masked position holds one vector.

Such a map is mostly repetition: what masked positions give an output depends on which of its neighbours are masked, and
on nothing else. So the visible positions alone are multiplied, each by all taps of the kernel, and what it gives is
added to the outputs around it: 40 % of the multiply-adds in the paper's setting.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from pretrain.masking import VisibleLayout, expand_mask
from pretrain.sparse.convolution import autocast_arguments


def filled_convolution(
    module: nn.Conv2d, x_NCbb: torch.Tensor, fill_C: torch.Tensor, layout: VisibleLayout
) -> torch.Tensor:
    """``module(layout.unpack(x_NCbb, fill_C))``, equal up to rounding: ``(N, C, b, b)`` → ``(B, O, h, w)``.

    Gradients reach the module's parameters; hooks on it are not called.

    Args:
        module: of an odd kernel, stride 1 and zeros around the map, which keeps its size; with bias, without groups.
        x_NCbb: packed map.
        fill_C: what masked positions hold.
        layout: where the patches lie.
    """
    channels, block = x_NCbb.shape[1:3]
    outputs, _, kernel, _ = module.weight.shape
    height, width = layout.grid_h * block, layout.grid_w * block
    # What a masked position gives through each tap of the kernel.
    share_kO = torch.einsum('ockl,c->klo', module.weight, fill_C).flatten(0, 1)
    masked_B1hw = expand_mask(~layout.active_B1ff, height, width).to(share_kO.dtype)
    masked_Bnk = F.unfold(masked_B1hw, kernel, padding=kernel // 2).transpose(1, 2)
    rows_nC, weight = autocast_arguments(x_NCbb.permute(0, 2, 3, 1).reshape(-1, channels), module.weight)
    visible_BhwO = _Spread.apply(rows_nC, weight, *layout.spread_tables(block, kernel), (layout.batch, height, width))
    dense_BhwO = visible_BhwO + F.linear(masked_Bnk, share_kO.t(), module.bias).view(-1, height, width, outputs)
    return dense_BhwO.permute(0, 3, 1, 2)


class _Spread(torch.autograd.Function):
    """``rows (n, C), weight (O, C, k, k) → (B, h, w, O)``: convolves the map that is zero at masked positions."""

    @staticmethod
    def forward(ctx, rows_nC, weight, targets_nk, order, starts, sizes):
        outputs, channels, kernel, _ = weight.shape
        ctx.save_for_backward(rows_nC, weight, targets_nk)
        products = (rows_nC @ weight.permute(1, 2, 3, 0).reshape(channels, -1)).view(-1, outputs)
        summed = F.embedding_bag(order, products, starts, mode='sum')
        margin, (batch, height, width) = kernel // 2, sizes
        padded = summed.view(batch, height + 2 * margin, width + 2 * margin, outputs)
        return padded[:, margin : margin + height, margin : margin + width]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BhwO):
        rows_nC, weight, targets_nk = ctx.saved_tensors
        outputs, channels, kernel, _ = weight.shape
        margin = kernel // 2
        padded = F.pad(grad_BhwO, (0, 0, margin, margin, margin, margin)).reshape(-1, outputs)
        grad_nkO = padded.index_select(0, targets_nk.flatten()).view(len(rows_nC), -1)
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_rows = grad_nkO @ weight.permute(2, 3, 0, 1).reshape(-1, channels)
        if ctx.needs_input_grad[1]:
            grad_weight = (grad_nkO.t() @ rows_nC).view(kernel, kernel, outputs, channels).permute(2, 3, 0, 1)
        return grad_rows, grad_weight, None, None, None, None
