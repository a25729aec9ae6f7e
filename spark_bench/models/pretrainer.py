"""SparK as a model that mmengine's Runner trains."""

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from pretrain import visualize
from pretrain.ablations import ABLATIONS, get_ablation
from pretrain.masking import random_mask
from pretrain.spark import build_spark
from spark_bench.errors import InputError
from spark_bench.models.backbones import pyramid_channels
from spark_bench.models.pretraining import PretrainingModel, colours_of

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict


@MODELS.register_module()
class SparKPretrainer(BaseModel, PretrainingModel):
    """Wraps :class:`pretrain.SparK`; the other arguments are those of :func:`pretrain.build_spark`.

    Args:
        channels_last: keep weights and images in that memory layout.
    """

    methods = tuple(name for name, ablation in ABLATIONS.items() if ablation.pretrains)
    file, views = 'spark', ('spark', 'mae')

    def __init__(
        self,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        channels_last: bool = False,
        ablation: str = 'spark',
        **spark: Any,
    ):
        super().__init__(data_preprocessor, init_cfg)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.ablation = ablation
        self.spark = build_spark(ablation=ablation, **spark).to(memory_format=self.layout)

    @classmethod
    def settle(cls, model: 'ConfigDict', asked: str | None = None) -> str:
        """The ablation."""
        method = asked or model.get('ablation', 'spark')
        if asked is not None and asked not in ABLATIONS:
            raise InputError(
                f'--method {asked}: the recipe pretrains by spark or an ablation of it: leave the option '
                f'away, or give a recipe of {asked}'
            )
        get_ablation(method)
        model.ablation = method
        return method

    @classmethod
    def check(cls, cfg: 'Config') -> None:
        pyramid_channels(cfg.model.arch)

    @classmethod
    def side(cls, model: 'ConfigDict') -> int | None:
        return model.get('input_size', 224)

    def forward(self, inputs: torch.Tensor, data_samples: object = None, mode: str = 'loss') -> dict[str, torch.Tensor]:
        """``inputs`` is a batch of images ``(B, 3, H, W)``; returns ``{'loss': scalar}``."""
        return {'loss': self.spark(inputs.contiguous(memory_format=self.layout))}

    @property
    def trained(self) -> nn.Module:
        return self.spark

    def encoder(self) -> dict[str, torch.Tensor]:
        return self.spark.encoder.pyramid.network.state_dict()

    def settings(self) -> dict[str, str]:
        spark = self.spark
        mean_311, std_311 = colours_of(self.data_preprocessor)
        return {
            'format': 'spark',
            'mean': json.dumps(mean_311.flatten().tolist()),
            'std': json.dumps(std_311.flatten().tolist()),
            'input_size': str(spark.grid * spark.patch_size),
            'mask_ratio': str(spark.mask_ratio),
            'ablation': self.ablation,
            'decoder_width': str(spark.decoder.widths[0]),
            'patch_size': str(spark.patch_size),
        }

    def no_weight_decay(self) -> set[str]:
        return self.spark.no_weight_decay()

    @property
    def shown_side(self) -> int | None:
        return self.spark.grid * self.spark.patch_size

    def reconstruct(self, pixels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        active = random_mask(len(pixels), self.spark.grid, self.spark.mask_ratio, torch.Generator().manual_seed(seed))
        mean_311, std_311 = colours_of(self.data_preprocessor)
        images = visualize.reconstruct(
            self.spark, torch.from_numpy(pixels).permute(0, 3, 1, 2), active, mean=mean_311, std=std_311
        )
        return {name: tensor.numpy() for name, tensor in vars(images).items()}

    @contextlib.contextmanager
    def observable(self) -> Iterator[None]:
        """Fast paths call some modules as functions; the plain definition, which computes the same, none."""
        encoder, decoder = self.spark.encoder, self.spark.decoder
        engine, stepwise = encoder.engine, decoder.stepwise
        try:
            if engine == 'packed':
                encoder.engine = 'reference'
            decoder.stepwise = True
            yield
        finally:
            encoder.engine, decoder.stepwise = engine, stepwise
