"""SparK as a model that mmengine's Runner trains."""

from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from pretrain.spark import build_spark


@MODELS.register_module()
class SparKPretrainer(BaseModel):
    """Wraps :class:`pretrain.SparK`; the other arguments are those of :func:`pretrain.build_spark`.

    Args:
        channels_last: keep weights and images in that memory layout.
    """

    def __init__(self, data_preprocessor: dict[str, Any] | nn.Module | None = None,
                 init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None, channels_last: bool = False,
                 **spark: Any):
        super().__init__(data_preprocessor, init_cfg)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.spark = build_spark(**spark).to(memory_format=self.layout)

    def forward(self, inputs: torch.Tensor, data_samples: object = None, mode: str = 'loss') -> dict[str, torch.Tensor]:
        """``inputs`` is a batch of images ``(B, 3, H, W)``; returns ``{'loss': scalar}``."""
        return {'loss': self.spark(inputs.contiguous(memory_format=self.layout))}
