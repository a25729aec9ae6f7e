"""Keeping less for the backward pass: activations that a norm gives are made again from its input.

A batch norm keeps its input, and the convolution behind it keeps the norm's activated output: the same map twice. The
second is one pass over memory away from the first, so it is not kept. Neither is the sum of such a branch and a
shortcut, two blocks on end: of every third the output is kept, from which those behind it are made.
"""

from dataclasses import dataclass, replace

import torch
from timm.layers import DropPath
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from pretrain.masking import VisibleLayout
from pretrain.sparse.stochastic_depth import draw_scale

MOST_SUMS = 2  # that are made again one from the other


@dataclass(frozen=True)
class NormedActivation:
    """The recipe of a map that exists now and is wanted again in the backward pass.

    A batch norm; then, where there are any, stochastic depth, the sum with a shortcut, and a ReLU.

    Attributes:
        norm: ``BatchNorm2d`` in training, with affine parameters.
        x_NCbb: its input, which autograd keeps anyway; detached, or it would keep all that it was made of.
        scale: what stochastic depth multiplies by, one value a patch.
        shortcut: what is added, or its recipe.
        version: autograd's count of changes in place of a shortcut that is no recipe.
        sums: how many sums are made again for this map, its own and those of its shortcut.
        rectified: whether a ReLU follows.
    """

    norm: nn.BatchNorm2d
    x_NCbb: torch.Tensor
    scale: torch.Tensor | None = None
    shortcut: 'torch.Tensor | NormedActivation | None' = None
    version: int = 0
    sums: int = 0
    rectified: bool = False

    def make(self) -> torch.Tensor:
        """The map, to the bit as it was: the moments are those of the same input."""
        norm = self.norm
        with torch.no_grad():
            y_NCbb = nn.functional.batch_norm(self.x_NCbb, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
            if self.scale is not None:
                y_NCbb *= self.scale
            if isinstance(self.shortcut, NormedActivation):
                y_NCbb += self.shortcut.make()
            elif self.shortcut is not None:
                if self.shortcut._version != self.version:
                    raise RuntimeError('a shortcut was changed in place after its sum, which cannot be made again')
                y_NCbb += self.shortcut
            return y_NCbb.relu_() if self.rectified else y_NCbb


def recipe_of_output(
    module: nn.Module, x_NCbb: torch.Tensor, layout: VisibleLayout, recipe: NormedActivation | None
) -> NormedActivation | None:
    """The recipe of what ``module`` makes of ``x_NCbb``, whose own is ``recipe``; None where there is none.

    There is one behind a plain batch norm that takes its moments from its input, and behind stochastic depth and a ReLU
    that follow it. The partitioner of ``torch.compile`` decides itself what is kept.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return None
    if type(module) is nn.BatchNorm2d and module.training and module.affine:
        return NormedActivation(module, x_NCbb.detach())
    if recipe is None or type(module) is nn.Identity:
        return recipe
    if type(module) is DropPath and recipe.scale is None and recipe.shortcut is None and not recipe.rectified:
        scale = draw_scale(module, x_NCbb, layout)
        return recipe if scale is None else replace(recipe, scale=scale)
    return replace(recipe, rectified=True) if type(module) is nn.ReLU and not recipe.rectified else None


def recipe_of_sum(
    branch: torch.Tensor,
    shortcut: torch.Tensor,
    recipe: NormedActivation | None,
    recipe_of_shortcut: NormedActivation | None,
) -> NormedActivation | None:
    """The recipe of ``branch + shortcut``, whose own are these; None where there is none."""
    if recipe is None or recipe.rectified or recipe.shortcut is not None or not torch.is_tensor(shortcut):
        return None
    # Else the sum might lie in memory otherwise than what is made again.
    if (branch.shape, branch.stride(), branch.dtype) != (shortcut.shape, shortcut.stride(), shortcut.dtype):
        return None
    sums = 1 + (0 if recipe_of_shortcut is None else recipe_of_shortcut.sums)
    if sums > MOST_SUMS:
        return None
    if recipe_of_shortcut is not None:
        return replace(recipe, shortcut=recipe_of_shortcut, sums=sums)
    return replace(recipe, shortcut=shortcut.detach(), version=shortcut._version, sums=sums)


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
