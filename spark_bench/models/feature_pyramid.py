"""A pyramid over the one map of a plain backbone."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models.utils import LayerNorm2d
from torch import nn


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Five maps of strides 4, 8, 16, 32 and 64 from one of stride 16, without any path from map to map.

    The map is enlarged by transposed convolutions or halved by pooling; then a 1×1 and a 3×3 convolution, each with a
    layer norm over channels and without bias. The fifth map takes every second position of the fourth.

    Source: detectron2 ``SimpleFeaturePyramid`` with ``LastLevelMaxPool``, as in projects/ViTDet (arXiv 2203.16527).

    Args:
        in_channels: of the backbone's map.
        out_channels: of every map of the pyramid.
    """

    def __init__(
        self, in_channels: int, out_channels: int = 256, init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None
    ):
        super().__init__(init_cfg)
        half, quarter = in_channels // 2, in_channels // 4
        resize = [
            (quarter, [_double(in_channels, half), _norm(half), nn.GELU(), _double(half, quarter)]),
            (half, [_double(in_channels, half)]),
            (in_channels, []),
            (in_channels, [nn.MaxPool2d(2, 2)]),
        ]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *layers,
                nn.Conv2d(channels, out_channels, 1, bias=False),
                _norm(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                _norm(out_channels),
            )
            for channels, layers in resize
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return a tuple of five maps ``(B, out_channels, h, w)``, finest first.

        Args:
            maps: tuple of one map ``(B, in_channels, H/16, W/16)``.
        """
        [map_BChw] = maps
        pyramid = [stage(map_BChw) for stage in self.stages]
        return (*pyramid, pyramid[-1][:, :, ::2, ::2])


def _double(in_channels, out_channels):
    return nn.ConvTranspose2d(in_channels, out_channels, 2, 2)


def _norm(channels):
    return LayerNorm2d(channels, eps=1e-6)
