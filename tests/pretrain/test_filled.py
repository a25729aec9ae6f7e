"""Projections of maps that are filled with a mask token, against the dense convolution of the filled map."""

import pytest
import torch
from torch import nn

from pretrain import VisibleLayout
from pretrain.sparse.filled import filled_convolution

# Images that keep some patches, none, all, and such at the edges alone.
ACTIVE = torch.tensor(
    [[1, 0, 0, 0, 1, 1, 0, 0, 1], [0] * 9, [1] * 9, [0, 1, 0, 1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 1, 0, 0, 0, 0]]
)


def make(kernel, block, dtype):
    torch.manual_seed(0)
    layout = VisibleLayout(ACTIVE.bool().view(-1, 1, 3, 3))
    module = nn.Conv2d(6, 5, kernel, padding=kernel // 2).to(dtype)
    tensors = torch.randn(layout.visible, 6, block, block), torch.randn(6)
    return layout, module, *(tensor.to(dtype).requires_grad_() for tensor in tensors)


def with_gradients(compute, module, *inputs):
    out = compute()
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return out.detach(), *torch.autograd.grad((out * weights).sum(), [*inputs, *module.parameters()])


@pytest.mark.parametrize('block', [1, 2, 4])
@pytest.mark.parametrize('kernel', [1, 3, 5])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=str)
def test_it_is_the_convolution_of_the_filled_map_with_all_its_gradients(kernel, block, dtype, tolerance):
    layout, module, x_NCbb, fill_C = make(kernel, block, dtype)
    found = with_gradients(lambda: filled_convolution(module, x_NCbb, fill_C, layout), module, x_NCbb, fill_C)
    plain = with_gradients(lambda: module(layout.unpack(x_NCbb, fill_C)), module, x_NCbb, fill_C)
    for ours, theirs in zip(found, plain, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_under_autocast_it_is_as_near_as_bfloat16_allows():
    layout, module, x_NCbb, fill_C = make(3, 2, torch.float32)
    plain = with_gradients(lambda: module(layout.unpack(x_NCbb, fill_C)), module, x_NCbb, fill_C)

    def compute():
        with torch.autocast('cpu', torch.bfloat16):
            return filled_convolution(module, x_NCbb, fill_C, layout)

    for ours, theirs in zip(with_gradients(compute, module, x_NCbb, fill_C), plain, strict=True):
        assert (ours - theirs).norm() <= 1e-2 * theirs.norm()
