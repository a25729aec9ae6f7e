"""Supervised pretraining: a classifier whose network starts a transfer."""

from typing import TYPE_CHECKING

import torch
from mmengine.registry import MODELS
from torch import nn

from pretrain.encoder import create_network
from pretrain.networks import shapes_only
from spark_bench.models.classifier import SparKClassifier
from spark_bench.models.pretraining import PretrainingModel
from spark_bench.models.shapes import check_size

if TYPE_CHECKING:
    from mmengine.config import Config


@MODELS.register_module()
class SupervisedPretrainer(SparKClassifier, PretrainingModel):
    """Any network of timm, trained with labels; the arguments are those of :class:`SparKClassifier`."""

    methods, file, data, labelled = ('supervised',), 'supervised', 'classification', True

    @classmethod
    def check(cls, cfg: 'Config') -> None:
        with shapes_only():
            network = create_network(cfg.model.arch, cfg.model.get('drop_path_rate', 0.0))
            check_size(
                network,
                cfg.model.arch,
                cfg.train_dataloader.dataset.transform.input_size,
                'train_dataloader.dataset.transform.input_size',
            )

    @property
    def trained(self) -> nn.Module:
        return self.backbone

    def encoder(self) -> dict[str, torch.Tensor]:
        with shapes_only():
            names = create_network(self.arch).state_dict()
        return {name: value for name, value in self.backbone.state_dict().items() if name in names}

    def settings(self) -> dict[str, str]:
        return {'format': 'timm'}
