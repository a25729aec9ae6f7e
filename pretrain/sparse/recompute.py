"""Keeping less for the backward pass: activations that a norm gives are made again from its input.

A batch norm keeps its input, and the convolution behind it keeps the norm's activated output: the same map twice. The
second is one pass over memory away from the first, so it is not kept.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass(frozen=True)
class NormedActivation:
    """The recipe of a map that exists now and is wanted again in the backward pass: a batch norm, perhaps a ReLU.

    Attributes:
        norm: ``BatchNorm2d`` in training, with affine parameters.
        x_NCbb: its input, which autograd keeps anyway; detached, or it would keep all that it was made of.
        rectified: whether a ReLU follows.
    """

    norm: nn.BatchNorm2d
    x_NCbb: torch.Tensor
    rectified: bool = False

    def make(self) -> torch.Tensor:
        """The map, to the bit as it was: the moments are those of the same input."""
        norm = self.norm
        with torch.no_grad():
            y_NCbb = nn.functional.batch_norm(self.x_NCbb, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
            return y_NCbb.relu() if self.rectified else y_NCbb


def recipe_of_output(
    module: nn.Module, x_NCbb: torch.Tensor, recipe: NormedActivation | None
) -> NormedActivation | None:
    """The recipe of what ``module`` makes of ``x_NCbb``, whose own is ``recipe``; None where there is none.

    There is one behind a plain batch norm that takes its moments from its input, and behind a ReLU that follows it.
    The partitioner of ``torch.compile`` decides itself what is kept.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return None
    if type(module) is nn.BatchNorm2d and module.training and module.affine:
        return NormedActivation(module, x_NCbb.detach())
    if recipe is None or type(module) is nn.Identity:
        return recipe
    return replace(recipe, rectified=True) if type(module) is nn.ReLU and not recipe.rectified else None


def keeping(recipe: NormedActivation, y_NCbb: torch.Tensor) -> saved_tensors_hooks:
    """Context in which whatever autograd would keep of ``y_NCbb`` is replaced by its recipe.

    Args:
        recipe: :class:`NormedActivation` that makes ``y_NCbb``.
        y_NCbb: the map, or what an in-place operation is about to turn into it.
    """
    # Autograd holds on to pack: it must not hold on to the map.
    start, size, kind = y_NCbb.data_ptr(), y_NCbb.numel(), y_NCbb.dtype

    def pack(kept):
        if kept.data_ptr() == start and kept.numel() == size and kept.dtype == kind:
            return recipe, kept.shape, kept.stride()
        return kept

    def unpack(kept):
        if torch.is_tensor(kept):
            return kept
        made, shape, stride = kept
        return made.make().as_strided(shape, stride)

    return saved_tensors_hooks(pack, unpack)
