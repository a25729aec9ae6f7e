"""Convolutions of packed patches by gathering kernels, with their gradients."""

import torch
from torch.autograd.function import once_differentiable

from pretrain.errors import InputError
from pretrain.masking import VisibleLayout
from pretrain.sparse.gather import kernels
from pretrain.sparse.gather.kernels import Reading

Window = tuple[int, int, int, int, int]


def gather_convolution(
    x_NCbb: torch.Tensor,
    weight_OCkk: torch.Tensor,
    bias_O: torch.Tensor | None,
    layout: VisibleLayout,
    window: Window,
    depthwise: bool,
) -> torch.Tensor:
    """Convolve a packed map: ``(N, C, b, b)`` → ``(N, O, o, o)``.

    Args:
        x_NCbb: packed map.
        weight_OCkk: of the type of the map; ``(C, 1, k, k)`` for a depthwise convolution.
        bias_O: likewise.
        layout: of the visible patches.
        window: ``(kernel, stride, dilation, before, after)``, as ``window_of`` gives it.
        depthwise: whether each channel has a kernel of its own; there are no other groups.

    Raises:
        InputError: for maps on a CPU, unless Triton's interpreter is in use.
    """
    if not (x_NCbb.is_cuda or kernels.interpreted()):
        raise InputError(f'the kernel route runs on a GPU, and the maps are on {x_NCbb.device}: choose another route')
    block = x_NCbb.shape[-1]
    _, stride, _, before, after = window
    halo = layout.halo_table(block, before, after)
    halo_back = layout.halo_table(block // stride, *_halo_back(block, window))
    function = _Depthwise if depthwise else _Convolution
    return function.apply(x_NCbb, weight_OCkk, bias_O, halo, halo_back, window)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_NCbb, weight_OCkk, bias_O, halo, halo_back, window):
        ctx.save_for_backward(x_NCbb, weight_OCkk, halo, halo_back)
        ctx.window = window
        reading = forward_reading(halo, x_NCbb.shape[-1], window)
        weight_tCO = weight_OCkk.permute(2, 3, 1, 0).flatten(0, 1).contiguous()
        return _as_patches(kernels.convolve(_as_rows(x_NCbb), weight_tCO, bias_O, reading), reading)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_NOoo):
        x_NCbb, weight_OCkk, halo, halo_back = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        block, kernel, grad_mO = x_NCbb.shape[-1], weight_OCkk.shape[-1], _as_rows(grad_NOoo)
        grad_x = grad_weight = None
        if needs_x:
            reading = backward_reading(halo_back, block, ctx.window)
            weight_tOC = weight_OCkk.permute(2, 3, 0, 1).flatten(0, 1).contiguous()
            grad_x = _as_patches(kernels.convolve(grad_mO, weight_tOC, None, reading), reading)
        if needs_weight:
            grad_tCO = kernels.weight_gradient(_as_rows(x_NCbb), grad_mO, forward_reading(halo, block, ctx.window))
            grad_weight = grad_tCO.unflatten(0, (kernel, kernel)).permute(3, 2, 0, 1).to(weight_OCkk.dtype)
        return grad_x, grad_weight, grad_mO.sum(0) if needs_bias else None, None, None, None


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_NCbb, weight_C1kk, bias_C, halo, halo_back, window):
        ctx.save_for_backward(x_NCbb, weight_C1kk, halo, halo_back)
        ctx.window = window
        reading = forward_reading(halo, x_NCbb.shape[-1], window)
        weight_tC = weight_C1kk.flatten(1).t().contiguous()
        return _as_patches(kernels.convolve_depthwise(_as_rows(x_NCbb), weight_tC, bias_C, reading), reading)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_NCoo):
        x_NCbb, weight_C1kk, halo, halo_back = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        block, grad_mC = x_NCbb.shape[-1], _as_rows(grad_NCoo)
        grad_x = grad_weight = None
        if needs_x:
            reading = backward_reading(halo_back, block, ctx.window)
            weight_tC = weight_C1kk.flatten(1).t().contiguous()
            grad_x = _as_patches(kernels.convolve_depthwise(grad_mC, weight_tC, None, reading), reading)
        if needs_weight:
            reading = forward_reading(halo, block, ctx.window)
            grad_tC = kernels.depthwise_weight_gradient(_as_rows(x_NCbb), grad_mC, reading)
            grad_weight = grad_tC.t().reshape(weight_C1kk.shape).to(weight_C1kk.dtype)
        return grad_x, grad_weight, grad_mC.sum(0) if needs_bias else None, None, None, None


def forward_reading(halo: torch.Tensor, block: int, window: Window) -> Reading:
    """What each output of a convolution reads: position ``i·stride + v·dilation`` of the patch with its halo.

    Args:
        halo: ``layout.halo_table(block, before, after)``.
        block: b, side of a patch on the input.
        window: ``(kernel, stride, dilation, before, after)``.
    """
    kernel, stride, dilation, before, after = window
    side, out = before + block + after, block // stride
    outputs = len(halo) // side**2 * out**2
    return Reading(halo, outputs, kernel, side, out, UP=stride, SHIFT=0, STEP=dilation, DOWN=1)


def backward_reading(halo_back: torch.Tensor, block: int, window: Window) -> Reading:
    """What each input of a convolution was read by: the transpose of :func:`forward_reading`.

    Output q reads input ``q·stride + v·dilation - before``; so input i was read at v by
    ``q = (i + before - v·dilation) / stride``, if that is a whole number: at stride 1 the same window, mirrored.

    Args:
        halo_back: table of the output's patches with as much halo as these q reach out of a patch.
        block, window: as in :func:`forward_reading`.
    """
    kernel, stride, dilation, before, _ = window
    ahead, behind = _halo_back(block, window)
    side = ahead + block // stride + behind
    outputs = len(halo_back) // side**2 * block**2
    shift = before + ahead * stride
    return Reading(halo_back, outputs, kernel, side, block, UP=1, SHIFT=shift, STEP=-dilation, DOWN=stride)


def _halo_back(block, window):
    """How far the first and the last q of :func:`backward_reading` lie outside a patch of the output."""
    kernel, stride, dilation, before, _ = window
    first, last = before - dilation * (kernel - 1), block - 1 + before
    return -(first // stride), last // stride - (block // stride - 1)


def _as_rows(x_NCbb):
    return x_NCbb.permute(0, 2, 3, 1).reshape(-1, x_NCbb.shape[1]).contiguous()


def _as_patches(y_mO, reading):
    return y_mO.view(-1, reading.OUT, reading.OUT, y_mO.shape[1]).permute(0, 3, 1, 2)
