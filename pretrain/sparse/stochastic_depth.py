"""Stochastic depth of packed maps: an image is dropped with all its patches."""

import torch
from timm.layers import DropPath

from pretrain.masking import VisibleLayout


def draw_scale(module: DropPath, x: torch.Tensor, layout: VisibleLayout) -> torch.Tensor | None:
    """Draw what each patch is multiplied by, ``(N, 1, 1, 1)``: one value an image; None where nothing is dropped."""
    if module.drop_prob == 0.0 or not module.training:
        return None
    keep_B111 = module(x.new_ones(layout.batch, 1, 1, 1))
    return keep_B111.index_select(0, layout.image_N)
