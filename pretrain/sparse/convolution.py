"""Convolutions on visible patches: routes to the same numbers, chosen by what they cost.

Milliseconds on 2 cores of an AMD EPYC (AVX2), float32, 8 images of 224 px with 20 of 49 patches visible, forward
and backward of one layer:

    ==========================================  =====  ======  ======
    layer                                       halo   matrix  dense
    ==========================================  =====  ======  ======
    3×3, 64 → 64 channels, patches of 8×8         28      40
    3×3, 128 → 128, 4×4                           26      26
    3×3, 256 → 256, 2×2                           38      23
    3×3, 512 → 512, 1×1                           82      28
    1×1, 512 → 2048, 1×1                          27      11
    depthwise 7×7, 96, 8×8                        13               12
    depthwise 7×7, 384, 2×2                      9.5              3.0
    ==========================================  =====  ======  ======

and on an NVIDIA H200, bfloat16, 128 images, where times near 1 ms are those of starting the operations:

    ==========================================  =====  ======  ======  ======
    layer                                       halo   matrix  dense   kernel
    ==========================================  =====  ======  ======  ======
    3×3, 64 → 64 channels, patches of 8×8        1.28    3.09            1.16
    3×3, 128 → 128, 4×4                          1.04    1.05            1.16
    3×3, 256 → 256, 2×2                          1.04    1.00            1.01
    3×3, 512 → 512, 1×1                          1.20    0.58            0.93
    depthwise 7×7, 128, 8×8                      6.77           14.96    1.61
    depthwise 7×7, 256, 4×4                      5.93           10.12    0.67
    depthwise 7×7, 512, 2×2                      4.74            4.18    1.14
    depthwise 7×7, 1024, 1×1                     9.91           10.08    1.66
    ==========================================  =====  ======  ======  ======

*halo*: surround each patch with its neighbours, convolve without padding. *matrix*: gather what each output reads as
one row of a matrix, one product. *dense*: scatter to the dense map, convolve, gather back; a large depthwise kernel on
small patches reads mostly halo, and its few multiply-adds cost less than the copies. *kernel*: gather while convolving,
in Triton on a GPU (``pretrain.sparse.gather``). What a card does otherwise is in ``pretrain.sparse.routes``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm import layers
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input, conv2d_weight

from pretrain.errors import InputError
from pretrain.masking import VisibleLayout
from pretrain.sparse.halo import fold_halo, gather_halo
from pretrain.sparse.routes import computed_dtype, preferred_route, runs_kernels

# Patches at most this wide on the output take the matrix route.
MATRIX_ROUTE_SIDE = 4
_ONEDNN = torch.backends.mkldnn.is_available()


def packed_convolution(module: nn.Conv2d, x_NCbb: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
    """Convolve a packed map; the result equals the masked dense convolution at the visible positions.

    Args:
        module: ``Conv2d``, or timm's ``Conv2dSame``.
        x_NCbb: packed map.
        layout: :class:`~pretrain.masking.VisibleLayout`.

    Raises:
        InputError: where the stride does not divide the patch.
    """
    block = x_NCbb.shape[-1]
    window = window_of(module, block)
    if window is None or module.padding_mode != 'zeros':
        return layout.pack(module(layout.unpack(x_NCbb)))
    kernel, stride, dilation, before, after = window
    possible = _possible_routes(module, window)
    route = preferred_route(module, x_NCbb, possible) or _usual_route(possible, x_NCbb, window, _is_depthwise(module))
    if route == 'matrix':
        return _matrix_route(module, x_NCbb, layout, window)
    if route == 'halo' and before == after == 0:
        return F.conv2d(x_NCbb, module.weight, module.bias, stride, 0, dilation, module.groups)
    x_NCbb, weight, bias = autocast_arguments(x_NCbb, module.weight, module.bias)
    if route == 'kernel':
        from pretrain.sparse.gather.functions import gather_convolution  # imports Triton, which is not everywhere

        return gather_convolution(x_NCbb, weight, bias, layout, window, _is_depthwise(module))
    if route == 'dense':
        places = layout.dense_positions(block), layout.dense_positions(block // stride)
        sizes = layout.batch, layout.grid_h, layout.grid_w
        return _DenseDepthwise.apply(x_NCbb, weight, bias, *places, sizes, (stride, before, dilation))
    return _HaloConvolution.apply(x_NCbb, weight, bias, layout.halo_table(block, before, after), window, module.groups)


def _possible_routes(module, window):
    kernel, stride, dilation, before, _ = window
    if _is_depthwise(module):
        one_padding = 2 * before >= dilation * (kernel - 1) + 1 - stride
        return ('halo', 'dense', 'kernel') if one_padding else ('halo', 'kernel')
    if module.groups > 1:
        return ('halo',)
    return ('halo', 'matrix') if kernel == stride == 1 else ('halo', 'matrix', 'kernel')


def _usual_route(possible, x_NCbb, window, depthwise):
    """The fastest as the tables above have it; ``MEASURED`` has the exceptions."""
    _, stride, _, before, after = window
    block = x_NCbb.shape[-1]
    is_worth_it = depthwise or (computed_dtype(x_NCbb).itemsize == 2 and block > stride)
    if is_worth_it and 'kernel' in possible and before + after > 0 and runs_kernels(x_NCbb.device):
        return 'kernel'
    if 'dense' in possible and x_NCbb.is_cpu and 2 * (before + after) > block:
        return 'dense'
    if 'matrix' in possible and block // stride <= MATRIX_ROUTE_SIDE:
        return 'matrix'
    return 'halo'


def _is_depthwise(module):
    return module.groups == module.in_channels == module.out_channels > 1


def window_of(module: nn.Module, block: int) -> tuple[int, int, int, int, int] | None:
    """``(kernel, stride, dilation, before, after)`` of a convolution or pooling on patches of side ``block``.

    ``before`` and ``after`` are the positions it reads outside a patch. None where the window is not square, or its
    padding does not make the map ``stride`` times smaller: such a module has to see the dense map.

    Raises:
        InputError: where the stride does not divide the patch.
    """
    axes = set(
        zip(
            *(layers.to_2tuple(getattr(module, name, 1)) for name in ('kernel_size', 'stride', 'dilation')), strict=True
        )
    )
    if len(axes) > 1:
        return None
    [(kernel, stride, dilation)] = axes
    if block % stride:
        raise InputError(
            f'a stride of {stride} does not divide a patch of {block} positions: '
            'choose mask patches that are a multiple of the total stride'
        )
    reach = dilation * (kernel - 1)
    same = isinstance(module, (layers.Conv2dSame, layers.AvgPool2dSame, MaxPool2dSame))
    if same:
        # TensorFlow's rule, for maps that the stride divides; its padding does not depend on the size then.
        before = max(reach + 1 - stride, 0) // 2
    elif isinstance(module.padding, str):
        before = reach // 2 if module.padding == 'same' else 0
    elif len(set(layers.to_2tuple(module.padding))) == 1:
        before = layers.to_2tuple(module.padding)[0]
    else:
        return None
    if not (same or reach + 1 - stride <= 2 * before <= reach):
        return None
    return kernel, stride, dilation, before, max(reach + 1 - stride - before, 0)


def autocast_arguments(*tensors: torch.Tensor | None) -> Sequence[torch.Tensor | None]:
    """What autocast would do to the arguments of a convolution: our own functions are unknown to it."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return [None if tensor is None else tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors]


def _matrix_route(module, x_NCbb, layout, window):
    kernel, stride, dilation, before, after = window
    visible, channels, block, _ = x_NCbb.shape
    if kernel == stride == 1:
        return F.linear(x_NCbb.permute(0, 2, 3, 1), module.weight.flatten(1), module.bias).permute(0, 3, 1, 2)
    table = layout.window_table(block, before, after, kernel, stride, dilation)
    rows = x_NCbb.permute(0, 2, 3, 1).reshape(-1, channels)
    rows, weight, bias = autocast_arguments(rows, module.weight, module.bias)
    # Where each position is read by as many outputs as it reads inputs, the gradient is a product of the same kind.
    symmetric = stride == 1 and before == after
    out = _WindowProduct.apply(rows, weight, table, symmetric)
    out = out if bias is None else out + bias
    return out.view(visible, block // stride, block // stride, -1).permute(0, 3, 1, 2)


class _WindowProduct(torch.autograd.Function):
    """``rows (n, C), weight (O, C, k, k), table (m, k²) → (m, O)``; keeps the rows, not the k² times larger matrix."""

    @staticmethod
    def forward(ctx, rows, weight, table, symmetric):
        ctx.save_for_backward(rows, weight, table)
        ctx.symmetric = symmetric
        return _windows(rows, table) @ _as_matrix(weight).t()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mO):
        rows, weight, table = ctx.saved_tensors
        needs_rows, needs_weight, _, _ = ctx.needs_input_grad
        grad_mO = grad_mO.contiguous()
        grad_rows = grad_weight = None
        if needs_weight:
            outputs, channels, kernel, _ = weight.shape
            grad_weight = (grad_mO.t() @ _windows(rows, table)).view(outputs, kernel, kernel, channels)
            grad_weight = grad_weight.permute(0, 3, 1, 2)
        if needs_rows and ctx.symmetric:
            # What output p reads at offset d, position p + d gives at offset -d.
            mirror = torch.arange(table.shape[1] - 1, -1, -1, device=weight.device)
            mirrored_kOC = weight.flatten(2).permute(2, 0, 1).index_select(0, mirror)
            grad_rows = _windows(grad_mO, table) @ mirrored_kOC.flatten(0, 1)
        elif needs_rows:
            grad_windows = (grad_mO @ _as_matrix(weight)).view(-1, rows.shape[1])
            grad_rows = rows.new_zeros(len(rows) + 2, rows.shape[1]).index_add_(0, table.flatten(), grad_windows)[:-2]
        return grad_rows, grad_weight, None, None


def _as_matrix(weight_OCkk):
    """``(O, C, k, k)`` → ``(O, k²·C)``."""
    return weight_OCkk.permute(0, 2, 3, 1).flatten(1)


def _windows(rows, table):
    """``(n, C)`` gathered to ``(m, k²·C)``, zeros for masked positions and those outside the image."""
    rows = torch.cat([rows, rows.new_zeros(2, rows.shape[1])])
    return rows.index_select(0, table.flatten()).view(len(table), -1)


class _HaloConvolution(torch.autograd.Function):
    """Convolution of the patches with their halos; keeps the patches, and gathers the halos again to go back."""

    @staticmethod
    def forward(ctx, x_NCbb, weight, bias, table, window, groups):
        _, stride, dilation, _, _ = window
        ctx.save_for_backward(x_NCbb, weight, table)
        ctx.window, ctx.groups = window, groups
        return F.conv2d(gather_halo(x_NCbb, table), weight, bias, stride, 0, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_NCbb):
        x_NCbb, weight, table = ctx.saved_tensors
        _, stride, dilation, before, after = ctx.window
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_padded, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad_NCbb,
            gather_halo(x_NCbb, table),
            weight,
            [weight.shape[0]],
            [stride] * 2,
            [0, 0],
            [dilation] * 2,
            False,
            [0, 0],
            ctx.groups,
            [needs_x, needs_weight, needs_bias],
        )
        grad_x = fold_halo(grad_padded, table, before, after) if needs_x else None
        return grad_x, grad_weight, grad_bias, None, None, None


class _DenseDepthwise(torch.autograd.Function):
    """Depthwise convolution through the dense map; keeps the packed map, and lays it out again in the backward pass.

    The dense map is laid out channel by channel, ``(1, C·B, h, w)``: so it is one gather from the packed map, and each
    channel of each image is a group of its own. ``before`` and ``behind`` are the positions of the visible places in
    the map that is read and in the one that is made, ``sizes`` B and the sides of the mask's grid.
    """

    @staticmethod
    def forward(ctx, x_NCbb, weight, bias, before, behind, sizes, geometry):
        stride, padding, dilation = geometry
        ctx.save_for_backward(x_NCbb, weight, before, behind)
        ctx.sizes, ctx.geometry = sizes, geometry
        x = _lay_out(x_NCbb, before, sizes)
        kernels = weight.repeat_interleave(sizes[0], 0)
        biases = bias
        if bias is not None:  # chosen, not repeated: inductor's convolution takes no bias that is a view
            biases = bias.index_select(0, torch.arange(len(kernels), device=bias.device) // sizes[0])
        return _cut_out(F.conv2d(x, kernels, biases, stride, padding, dilation, len(kernels)), behind, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_NCbb):
        x_NCbb, weight, before, behind = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad, batch = _lay_out(grad_NCbb, behind, ctx.sizes), ctx.sizes[0]
        kernels = weight.repeat_interleave(batch, 0)
        grad_x = grad_weight = None
        x = _lay_out(x_NCbb, before, ctx.sizes)
        if needs_weight:
            grad_weight = _depthwise_weight_gradient(x, grad, kernels, *ctx.geometry)
            grad_weight = grad_weight.view(len(weight), batch, *weight.shape[2:]).sum(1, keepdim=True)
        if needs_x:
            grad_x = _cut_out(_depthwise_input_gradient(x, grad, kernels, *ctx.geometry), before, ctx.sizes)
        return grad_x, grad_weight, grad_NCbb.sum((0, 2, 3)) if needs_bias else None, None, None, None, None


def _lay_out(x_NCbb, positions, sizes):
    """``x_NCbb`` → ``(1, C·B, h, w)``, zero at masked positions."""
    _, channels, block, _ = x_NCbb.shape
    batch, height, width = sizes[0], sizes[1] * block, sizes[2] * block
    dense = x_NCbb.new_zeros(channels, batch * height * width)
    rows = x_NCbb.permute(0, 2, 3, 1).reshape(-1, channels)
    # On a CPU up to five times faster than a gather from columns, and than a transpose of dense rows.
    dense.index_copy_(1, positions, rows.t())
    return dense.view(1, channels * batch, height, width)


def _cut_out(x_1Chw, positions, sizes):
    """The inverse of :func:`_lay_out`, for visible positions."""
    block, channels = x_1Chw.shape[-1] // sizes[2], x_1Chw.shape[1] // sizes[0]
    rows = x_1Chw.view(channels, -1).t().index_select(0, positions)
    return rows.view(-1, block, block, channels).permute(0, 3, 1, 2)


def _fast_on_cpu(x):
    return x.is_cpu and x.dtype in (torch.float32, torch.bfloat16) and _ONEDNN


def _depthwise_input_gradient(x, grad, kernels, stride, padding, dilation):
    centred = stride == 1 and 2 * padding == dilation * (kernels.shape[-1] - 1)
    if centred and _fast_on_cpu(x):
        return F.conv2d(grad, kernels.flip(2, 3), None, 1, padding, dilation, len(kernels))
    return conv2d_input(x.shape, kernels, grad, stride, padding, dilation, len(kernels))


def _depthwise_weight_gradient(x, grad, kernels, stride, padding, dilation):
    """Gradient of each group's kernel, ``(C·B, 1, k, k)``.

    It is itself a convolution: of each channel of each image, by that channel's gradient. On a CPU the forward
    kernel does it three to five times faster than oneDNN's own weight gradient.
    """
    if not _fast_on_cpu(x):
        return conv2d_weight(x, kernels.shape, grad, stride, padding, dilation, len(kernels))
    correlation = F.conv2d(x, grad.transpose(0, 1), None, dilation, padding, stride, len(kernels))
    size = kernels.shape[-1]
    return correlation[0, :, None, :size, :size]
