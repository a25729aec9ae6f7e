"""A transposed convolution and the convolution behind it, computed as one.

Nothing stands between the two in a block of the decoder, so they are one linear map: a 4×4 transposed convolution of
stride 2 and a 3×3 convolution make a 6×6 transposed one. Each of the four phases of its output (even or odd row, even
or odd column) is a 3×3 convolution of the small map; together they are one convolution to four times the channels, and
the map in between is never made. That is 9 multiply-adds for each channel, output channel and output position, where
the two take 4 + 9. The weights of the 6×6 kernel are products of the others, made anew in each step: 144·c³
multiply-adds, so this pays for narrow layers on large maps.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


def up_convolution(up_sample: nn.ConvTranspose2d, convolution: nn.Conv2d, x_Bchw: torch.Tensor) -> torch.Tensor:
    """``convolution(up_sample(x))``, equal up to rounding: ``(B, c, h, w)`` → ``(B, C, 2h, 2w)``, channels-last.

    Gradients reach the parameters of both modules; hooks on the modules are not called.

    Args:
        up_sample: 4×4, stride 2, padding 1, with bias.
        convolution: 3×3, padding 1, without bias.
        x_Bchw: the small map.
    """
    up_cm44, bias_m, kernel_Cm33 = up_sample.weight, up_sample.bias, convolution.weight
    with torch.autocast(x_Bchw.device.type, enabled=False):  # rounded once, not before each product
        weight_4Cc33 = _phase_kernels(up_cm44, kernel_Cm33)
        bias_4C = (kernel_Cm33.sum((2, 3)) @ bias_m).repeat(4)
    phases_B4Chw = F.conv2d(x_Bchw, weight_4Cc33, bias_4C, padding=1)
    # The up-sampled map would go on beyond its edge, where the second convolution reads zeros: its share is taken off.
    rows, columns = dict(stride=(1, 2)), dict(stride=(2, 1), padding=(1, 0))
    top, bottom, left, right = _Edges.apply(x_Bchw)
    top = F.conv_transpose2d(top, up_cm44[:, :, :1], bias_m, **rows)
    bottom = F.conv_transpose2d(bottom, up_cm44[:, :, 3:], bias_m, **rows)
    left = F.conv_transpose2d(left, up_cm44[:, :, :, :1], bias_m, **columns)
    right = F.conv_transpose2d(right, up_cm44[:, :, :, 3:], bias_m, **columns)
    return _Interleave.apply(
        phases_B4Chw,
        F.conv2d(top, kernel_Cm33[:, :, :1]),
        F.conv2d(bottom, kernel_Cm33[:, :, 2:]),
        F.conv2d(left, kernel_Cm33[:, :, :, :1], padding=(1, 0)),
        F.conv2d(right, kernel_Cm33[:, :, :, 2:], padding=(1, 0)),
    )


def _phase_kernels(up_cm44, kernel_Cm33):
    """The 6×6 kernel as four 3×3 ones, ``(4·C, c, 3, 3)``: phases in the order of rows, then columns."""
    joint_cC66 = F.conv2d(up_cm44, kernel_Cm33, padding=2)
    narrow, wide = joint_cC66.shape[:2]
    # A transposed convolution reads backwards: the first taps belong to the position furthest down and right.
    taps_cC3232 = joint_cC66.view(narrow, wide, 3, 2, 3, 2).flip(2, 4)
    return taps_cC3232.permute(3, 5, 1, 2, 4, 0).reshape(4 * wide, 3, 3, narrow).permute(0, 3, 1, 2)


def _edges(x_Bchw):
    """Views of the first and the last row, the first and the last column."""
    return x_Bchw[:, :, :1], x_Bchw[:, :, -1:], x_Bchw[:, :, :, :1], x_Bchw[:, :, :, -1:]


class _Edges(torch.autograd.Function):
    """Copies of :func:`_edges`; autograd's own slices would each give a gradient of the whole map's size."""

    @staticmethod
    def forward(ctx, x_Bchw):
        ctx.shape = x_Bchw.shape
        return tuple(edge.clone() for edge in _edges(x_Bchw))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        batch, channels, height, width = ctx.shape
        grad_Bchw = grads[0].new_zeros(batch, height, width, channels).permute(0, 3, 1, 2)
        for edge, grad in zip(_edges(grad_Bchw), grads, strict=True):
            edge += grad
        return grad_Bchw


class _Interleave(torch.autograd.Function):
    """``(B, 4·C, h, w)`` → ``(B, C, 2h, 2w)``, less what is given for each of the edges; keeps nothing."""

    @staticmethod
    def forward(ctx, phases_B4Chw, *excess):
        batch, channels, height, width = phases_B4Chw.shape
        # Both columns of a row are neighbours in memory, with all their channels.
        cut = phases_B4Chw.permute(0, 2, 3, 1).reshape(batch, height, width, 2, channels // 2).transpose(2, 3)
        out_Bchw = cut.reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)
        for edge, beyond in zip(_edges(out_Bchw), excess, strict=True):
            edge -= beyond
        return out_Bchw

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BC):
        batch, channels, height, width = grad_BC.shape
        cut = grad_BC.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2 * channels).transpose(2, 3)
        grad_B4Chw = cut.reshape(batch, height // 2, width // 2, 4 * channels).permute(0, 3, 1, 2)
        return grad_B4Chw, *(-edge for edge in _edges(grad_BC))
