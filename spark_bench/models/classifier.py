"""A network of timm as a classifier that mmengine's Runner trains: mixup, CutMix, and the losses of the recipes."""

from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch import nn

from pretrain.encoder import create_network
from spark_bench import checkpoints
from spark_bench.errors import InputError
from spark_bench.models.backbones import stage_groups, timm_layer
from spark_bench.models.layer_depth import resnet_classifier_layer

# Targets are smoothed where images are mixed, so the losses themselves smooth nothing.
LOSSES = {'soft_target': SoftTargetCrossEntropy, 'binary': lambda: BinaryCrossEntropy(smoothing=0.0)}


@MODELS.register_module()
class SparKClassifier(BaseModel):
    """A whole timm network, with its own classifier.

    Args:
        arch: timm name.
        num_classes: of the classifier.
        weights: checkpoint of the network in any known format; fresh initialisation when None. The classifier is
            fresh in any case.
        key_prefix: beginning of the names of the network to take, of a file that holds several.
        drop_path_rate: stochastic depth.
        global_pool: timm's, of what the classifier sees, such as ``avg``, the mean of a ViT's patches in place of its
            class token; None for the network's own. That mean has a norm of its own, and the output norm no place.
        head_std: deviation that the classifier's weights are drawn with; None for timm's.
        loss: ``soft_target`` (cross entropy) or ``binary`` (cross entropy of each class on its own).
        mixup_alpha, cutmix_alpha: of the Beta distributions that a batch's mixing is drawn from; 0 for none. With
            both, either is taken with probability 0.5. Source: timm's ``Mixup``, in mode ``batch``.
        label_smoothing: the share of a target that is spread over all classes.
        channels_last: keep weights and images in that memory layout.

    Raises:
        InputError: for an unknown name or loss, or a rate that is none; from ``init_weights``, for a checkpoint that
            does not fit.
    """

    def __init__(
        self,
        arch: str,
        num_classes: int,
        weights: Path | str | None = None,
        drop_path_rate: float = 0.0,
        loss: str = 'soft_target',
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        label_smoothing: float = 0.0,
        channels_last: bool = False,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
        key_prefix: str | None = None,
        global_pool: str | None = None,
        head_std: float | None = None,
    ):
        super().__init__(data_preprocessor)
        if loss not in LOSSES:
            raise InputError(f'model.loss is {loss!r}: choose one of {", ".join(LOSSES)}')
        if not 0 <= label_smoothing < 1:
            raise InputError(f'model.label_smoothing is {label_smoothing}: give a share from 0 up, below 1')
        for name, alpha in (('mixup', mixup_alpha), ('cutmix', cutmix_alpha)):
            if alpha < 0:
                raise InputError(f'model.{name}_alpha is {alpha}: give a number above 0, or 0 for none')
        self.arch, self.weights, self.key_prefix, self.num_classes = arch, weights, key_prefix, num_classes
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone = create_network(arch, drop_path_rate, num_classes, global_pool).to(memory_format=self.layout)
        if head_std is not None:
            nn.init.trunc_normal_(self.backbone.get_classifier().weight, std=head_std)
        self.criterion = LOSSES[loss]()
        self._mixup = Mixup(mixup_alpha, cutmix_alpha, label_smoothing=label_smoothing, num_classes=num_classes)
        # Otherwise timm only makes smoothed targets.
        self._mixup.mixup_enabled = max(mixup_alpha, cutmix_alpha) > 0
        self._groups = stage_groups(self.backbone)

    def init_weights(self) -> None:
        """Load ``weights``; called by OpenMMLab after the model is built. timm has initialised the rest."""
        if self.weights is None:
            return
        features = create_network(self.arch)  # a file's own classifier has no place in it, whatever its shape
        coverage = checkpoints.load(features, self.weights, self.key_prefix)
        print_log(f'network {self.arch}: {coverage}', logger='current')
        own, loaded = self.backbone.state_dict(), features.state_dict()
        dropped = sorted(loaded.keys() - own.keys())
        if dropped:
            print_log(f'{", ".join(dropped)}: no place behind the pooling, which has a norm of its own', 'current')
        self.backbone.load_state_dict({**own, **{name: loaded[name] for name in loaded.keys() & own}}, strict=True)

    def forward(
        self,
        inputs: torch.Tensor,
        label: torch.Tensor | None = None,
        index: torch.Tensor | None = None,
        mode: str = 'tensor',
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Logits, or the loss.

        Args:
            inputs: normalised images ``(B, 3, H, W)``; mixed in place in mode ``loss``.
            label: ``(B,)``, class numbers; mode ``loss`` only.
            index: ``(B,)``, numbers of the images; not used.
            mode: ``tensor`` for logits ``(B, num_classes)``, float32; ``loss`` for ``{'loss': scalar}``.
        """
        if mode == 'loss':
            inputs, target = self.mix(inputs, label)
        logits = self.backbone(inputs.contiguous(memory_format=self.layout)).float()
        return {'loss': self.criterion(logits, target)} if mode == 'loss' else logits

    def mix(self, inputs: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixed images, and their soft targets ``(B, num_classes)``; drawn from numpy's generator."""
        # timm pairs the first image with the last, and so on: an odd batch gets a partner for its middle one.
        odd = len(inputs) % 2
        if odd:
            inputs, label = torch.cat([inputs[:1], inputs]), torch.cat([label[:1], label])
        inputs, target = self._mixup(inputs, label)
        return inputs[odd:], target[odd:]

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """``(layer, layers)`` of a parameter; see :func:`~spark_bench.models.backbones.timm_layer`."""
        return timm_layer(
            param_name.removeprefix('backbone.'),
            self.backbone,
            self._groups,
            resnet_classifier_layer,
            max(self._groups.values()) + 1,
        )
