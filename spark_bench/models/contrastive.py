"""MoCo v2 and BYOL: mmpretrain's models around a convnet of timm, two views of each image."""

from typing import TYPE_CHECKING, Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmpretrain.models import TIMMBackbone
from torch import nn

from pretrain.encoder import create_network
from pretrain.networks import shapes_only
from spark_bench.errors import InputError
from spark_bench.models.pretraining import PretrainingModel

if TYPE_CHECKING:
    from mmengine.config import Config

# Any multiple of the total stride of every convnet.
_SIDE = 64


class _TwoViews(BaseModel, PretrainingModel):
    """What both have in common: a whole model of mmpretrain, and a slow copy of its network beside it.

    The copy moves with every batch, not with every update: batches cannot be accumulated.
    """

    views, accumulates = ('moco_v2', 'byol'), False

    def __init__(
        self,
        arch: str,
        model: dict[str, Any],
        network: dict[str, Any] | None,
        channels_last: bool,
        data_preprocessor: dict[str, Any] | nn.Module | None,
    ):
        super().__init__(data_preprocessor)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = MODELS.build(
            {
                **model,
                '_scope_': 'mmpretrain',
                'backbone': dict(type='TIMMBackbone', model_name=arch, **(network or {})),
            }
        ).to(memory_format=self.layout)
        for module in self.model.modules():
            if network and isinstance(module, TIMMBackbone):
                module._is_init = True  # as ``network`` has it; else it would begin anew by timm's own choice

    @classmethod
    def check(cls, cfg: 'Config') -> None:
        map_channels(cfg.model.arch)
        if cfg.global_batch < 2:
            raise InputError(f'global_batch is {cfg.global_batch}: give at least 2 images, to be told apart')

    def forward(
        self, inputs: list[torch.Tensor], data_samples: object = None, mode: str = 'loss'
    ) -> dict[str, torch.Tensor]:
        """``inputs`` are two batches of views ``(B, 3, H, W)`` of the same images; returns ``{'loss': scalar}``."""
        return self.model.loss([view.contiguous(memory_format=self.layout) for view in inputs], None)

    @property
    def trained(self) -> nn.Module:
        return self.model

    def encoder(self) -> dict[str, torch.Tensor]:
        return self.model.backbone.timm_model.state_dict()

    def settings(self) -> dict[str, str]:
        return {'format': 'mmpretrain'}


@MODELS.register_module()
class MoCoPretrainer(_TwoViews):
    """Momentum contrast, version 2 (Chen et al., arXiv 2003.04297): ``mmpretrain.MoCo``.

    In several processes, batch norm takes each process's own statistics and keys are shuffled between them, as the
    method has it: what is computed depends on how many there are.

    Args:
        arch: timm name of a convnet.
        queue_len: keys of earlier batches that serve as negatives, a multiple of the global batch.
        momentum: share of the network that its slow copy takes up with each batch.
        temperature: of the softmax.
        hidden, dim: widths of the projection.
        network: further arguments of timm's network.
        channels_last: keep weights and images in that memory layout.

    Raises:
        InputError: for a network that gives no map.
    """

    methods, file, synchronises = ('moco_v2',), 'moco_v2', False

    def __init__(
        self,
        arch: str,
        queue_len: int = 65536,
        momentum: float = 0.001,
        temperature: float = 0.2,
        hidden: int | None = None,
        dim: int = 128,
        network: dict[str, Any] | None = None,
        channels_last: bool = False,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
    ):
        channels = map_channels(arch)
        super().__init__(
            arch,
            dict(
                type='MoCo',
                queue_len=queue_len,
                feat_dim=dim,
                momentum=momentum,
                neck=dict(type='MoCoV2Neck', in_channels=channels, hid_channels=hidden or channels, out_channels=dim),
                head=dict(type='ContrastiveHead', temperature=temperature, loss=dict(type='CrossEntropyLoss')),
            ),
            network,
            channels_last,
            data_preprocessor,
        )

    @classmethod
    def check(cls, cfg: 'Config') -> None:
        super().check(cfg)
        queue = cfg.model.get('queue_len', 65536)
        if queue < 1 or queue % cfg.global_batch:
            raise InputError(
                f'model.queue_len is {queue}: give a multiple of global_batch, which is '
                f'{cfg.global_batch}, with --cfg-options'
            )


@MODELS.register_module()
class BYOLPretrainer(_TwoViews):
    """Bootstrap your own latent (Grill et al., arXiv 2006.07733): ``mmpretrain.BYOL``.

    Args:
        arch: timm name of a convnet.
        momentum: share of the network that its slow copy takes up with the first batch; it falls to 0 by a cosine.
        hidden, dim: widths of projection and prediction.
        network: further arguments of timm's network.
        channels_last: keep weights and images in that memory layout.

    Raises:
        InputError: for a network that gives no map.
    """

    methods, file = ('byol',), 'byol'

    def __init__(
        self,
        arch: str,
        momentum: float = 0.004,
        hidden: int = 4096,
        dim: int = 256,
        network: dict[str, Any] | None = None,
        channels_last: bool = False,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
    ):
        mlp = dict(
            type='NonLinearNeck',
            hid_channels=hidden,
            out_channels=dim,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            norm_cfg=dict(type='BN1d'),
        )
        super().__init__(
            arch,
            dict(
                type='BYOL',
                base_momentum=momentum,
                neck=dict(in_channels=map_channels(arch), with_avg_pool=True, **mlp),
                head=dict(
                    type='LatentPredictHead',
                    loss=dict(type='CosineSimilarityLoss'),
                    predictor=dict(in_channels=dim, with_avg_pool=False, **mlp),
                ),
            ),
            network,
            channels_last,
            data_preprocessor,
        )


def map_channels(arch: str) -> int:
    """Channels of a convnet's last map, as its pooling sees it.

    Raises:
        InputError: for a network of timm that has no such map.
    """
    with shapes_only():
        network = create_network(arch, num_classes=1).eval()
        network.reset_classifier(0, '')
        try:
            shape = network(torch.zeros(1, 3, _SIDE, _SIDE)).shape
        except (AssertionError, RuntimeError, ValueError):
            shape = ()
    if len(shape) != 4 or shape[2] != shape[3]:
        raise InputError(
            f'two views are contrasted by the last map of a convnet, and {arch} gives none: take one such as resnet50'
        )
    return shape[1]
