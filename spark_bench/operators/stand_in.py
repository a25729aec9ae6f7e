"""What ``mmcv._ext`` offers, computed by torchvision and torch, under mmcv's names and signatures.

As the compiled operators do, each computes in the type of its inputs whatever autocast says, and returns that type;
bfloat16, which those refuse, is computed in float32 and rounded. Where they fill a tensor that the caller made, so do
these. Tested against values recorded from the compiled ones (``tests/operators/``).

Suffixes: N images, C channels, H W size of a map, R boxes, h w bins or kernel, Q queries, M heads, D channels a head.
"""

import functools
from operator import itemgetter

import numpy as np
import torch
import torchvision
from torch import Tensor

from spark_bench.operators import MissingOperator

FLT_MIN = torch.finfo(torch.float32).tiny
# Sizes of a deformable convolution, which mmcv gives by name, in the order in which torchvision takes them.
_PLAIN = itemgetter('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
_MODULATED = itemgetter(
    'stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w', 'group', 'deformable_group'
)


def __getattr__(name):
    """An operator that is not answered for: it can be looked up, as mmcv does on import, and not called."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*_, **__):
        raise MissingOperator(name)

    return missing


def _without_autocast(operator):
    @functools.wraps(operator)
    def wrapped(tensor, *rest, **options):
        with torch.autocast(tensor.device.type, enabled=False):
            return operator(tensor, *rest, **options)

    return wrapped


def _precise(*tensors):
    """The same tensors, those in a type that torchvision's kernels lack as float32."""
    return [tensor.float() if tensor.dtype == torch.bfloat16 else tensor for tensor in tensors]


def get_compiler_version() -> str:
    return f'none: torchvision {torchvision.__version__}'


def get_compiling_cuda_version() -> str:
    return torch.version.cuda or 'not available'


@_without_autocast
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (int64) of the boxes_R4 that stay, by falling score; widths are x2 - x1 + ``offset``."""
    boxes, scores = _precise(boxes, scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # As mmcv: torch's sort decides between equal scores, and the threshold is a float32.
    order = scores.argsort(descending=True)
    return order[torchvision.ops.nms(boxes[order], scores[order], float(np.float32(iou_threshold)))]


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., 2017) on the CPU: fills ``dets`` (R, 5), returns the indices of its first rows.

    Args:
        method: 0 drops overlapping boxes, 1 lowers their scores linearly, 2 by a Gaussian of width ``sigma``.
    """
    # Rows change places as in mmcv, since that decides between equal scores.
    rows = np.concatenate([boxes.float().numpy(), scores.float().numpy()[:, None]], axis=1)
    low, high = rows[:, :2], rows[:, 2:4]
    areas = np.prod(high - low + np.float32(offset), axis=1)
    indices = np.arange(len(rows))
    count, i = len(rows), 0
    while i < count:
        scores_left = rows[i:count, 4]
        best = i + (0 if np.isnan(scores_left[0]) else int(np.nanargmax(scores_left)))
        for column in (rows, areas, indices):
            column[[i, best]] = column[[best, i]]
        rest = slice(i + 1, count)
        sides = np.minimum(high[i], high[rest]) - np.maximum(low[i], low[rest]) + np.float32(offset)
        shared = np.prod(np.maximum(sides, 0), axis=1)
        with np.errstate(invalid='ignore', divide='ignore'):  # boxes without area
            overlap = shared / (areas[i] + areas[rest] - shared)
        if method == 2:
            rows[rest, 4] *= np.exp(-(overlap * overlap) / np.float32(sigma))
        else:
            rows[rest, 4] *= np.where(overlap >= np.float32(iou_threshold), 1 - overlap if method else 0, 1)
        i += 1
        for position in np.flatnonzero(rows[rest, 4] < np.float32(min_score)) + i:
            # The last of those that stay moves up.
            while count > position and rows[count - 1, 4] < np.float32(min_score):
                count -= 1
            if count > position:
                count -= 1
                for column in (rows, areas, indices):
                    column[position] = column[count]
    dets[:count] = torch.from_numpy(rows[:count])
    return torch.from_numpy(indices[:count])


@_without_autocast
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` (R, C, h, w) from ``input`` (N, C, H, W) and ``rois`` (R, 5: image, x1, y1, x2, y2)."""
    if pool_mode == 0:
        raise MissingOperator("roi_align_forward with pool_mode='max'")
    output.copy_(
        torch.ops.torchvision.roi_align(
            *_precise(input, rois), spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


@_without_autocast
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input`` (N, C, H, W) from ``grad_output`` (R, C, h, w)."""
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            *_precise(grad_output, rois),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


@_without_autocast
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (R, C) with the focal loss (Lin et al., 2017) of logits (R, C) and classes (R,), C is none."""
    [logits] = _precise(input)
    p, hit = logits.sigmoid(), _one_hot(target, logits)
    loss = torch.where(
        hit,
        -alpha * (1 - p) ** gamma * p.clamp(min=FLT_MIN).log(),
        -(1 - alpha) * p**gamma * (1 - p).clamp(min=FLT_MIN).log(),
    )
    output.copy_(_weighted(loss, weight, target))


@_without_autocast
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (R, C) with the derivative of each loss by its logit."""
    [logits] = _precise(input)
    p, hit = logits.sigmoid(), _one_hot(target, logits)
    slope = torch.where(
        hit,
        -alpha * (1 - p) ** gamma * (1 - p - gamma * p * p.clamp(min=FLT_MIN).log()),
        -(1 - alpha) * p**gamma * (gamma * (1 - p) * (1 - p).clamp(min=FLT_MIN).log() - p),
    )
    grad_input.copy_(_weighted(slope, weight, target))


def _one_hot(target, logits):
    return target[:, None] == torch.arange(logits.shape[1], device=logits.device)


def _weighted(values, weight, target):
    return values * weight[target][:, None] if weight.numel() else values


@_without_autocast
def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **sizes: int
) -> None:
    """Deformable convolution (Dai et al., 2017): fill ``output`` from ``input`` and ``offset`` (dy, dx a point)."""
    arguments = _arguments(input, weight, offset, None, None, _PLAIN(sizes))
    output.copy_(torch.ops.torchvision.deform_conv2d(*arguments))


@_without_autocast
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **sizes: int,
) -> None:
    gradients = _deform_backward(gradOutput, input, weight, offset, None, None, _PLAIN(sizes))
    gradInput.copy_(gradients[0])
    gradOffset.copy_(gradients[2])


@_without_autocast
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **sizes: int,
) -> None:
    # Its own gradient does not depend on the weight, which mmcv does not hand over.
    gradients = _deform_backward(gradOutput, input, torch.zeros_like(gradWeight), offset, None, None, _PLAIN(sizes))
    gradWeight.add_(gradients[1], alpha=scale)


@_without_autocast
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Modulated deformable convolution (Zhu et al., 2019): each point is also weighted by ``mask``."""
    arguments = _arguments(input, weight, offset, mask, bias if with_bias else None, _MODULATED(sizes))
    output.copy_(torch.ops.torchvision.deform_conv2d(*arguments))


@_without_autocast
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **sizes: int,
) -> None:
    gradients = _deform_backward(
        grad_output, input, weight, offset, mask, bias if with_bias else None, _MODULATED(sizes)
    )
    for filled, gradient in zip((grad_input, grad_weight, grad_offset, grad_mask), gradients[:4], strict=True):
        filled.copy_(gradient)
    if with_bias:
        grad_bias.copy_(gradients[4])


def _deform_backward(grad_output, *arguments):
    """Gradients of input, weight, offset, mask and bias."""
    return torch.ops.torchvision._deform_conv2d_backward(*_precise(grad_output), *_arguments(*arguments))


def _arguments(input, weight, offset, mask, bias, geometry):
    # The places of a missing mask or bias are taken by tensors of no meaning.
    points = input.new_zeros((input.shape[0], 0)) if mask is None else mask
    shifts = input.new_zeros(weight.shape[0]) if bias is None else bias
    return *_precise(input, weight, offset, points, shifts), *geometry, mask is not None


@_without_autocast
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al., 2021), by mmcv's own PyTorch formula: (N, Q, M·D)."""
    return _attend(value, value_spatial_shapes, sampling_locations, attention_weights).to(value.dtype)


@_without_autocast
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    inputs = [tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = _attend(inputs[0], value_spatial_shapes, *inputs[1:])
    gradients = torch.autograd.grad(output, inputs, grad_output.to(output.dtype))
    for filled, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        filled.copy_(gradient)


def _attend(value, shapes, locations, weights):
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    half = value.dtype in (torch.float16, torch.bfloat16)
    value, locations, weights = (tensor.float() if half else tensor for tensor in (value, locations, weights))
    # As numbers at once: each use of a tensor on the GPU would wait for it.
    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)
