"""What MAE and SimMIM share: a model of mmpretrain around a network whose name and weights are timm's."""

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from pretrain.encoder import create_network
from pretrain.networks import evaluating, shapes_only
from pretrain.visualize import compose
from spark_bench.checkpoints.writing import timm_tensors
from spark_bench.data.images.seeding import drawing_from
from spark_bench.errors import InputError
from spark_bench.models.pretraining import PretrainingModel, colours_of

if TYPE_CHECKING:
    from mmengine.config import ConfigDict


class MaskedModel(BaseModel, PretrainingModel):
    """A whole model of mmpretrain, whose backbone's weights timm's network takes."""

    def __init__(
        self,
        arch: str,
        input_size: int,
        model: dict[str, Any],
        channels_last: bool,
        data_preprocessor: dict[str, Any] | nn.Module | None,
    ):
        super().__init__(data_preprocessor)
        self.arch, self.input_size = arch, input_size
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = MODELS.build({**model, '_scope_': 'mmpretrain'}).to(memory_format=self.layout)
        self._demand_timms_names()

    def _demand_timms_names(self):
        """Refuse a network of timm that has other parts than mmpretrain's."""
        with shapes_only():
            theirs = create_network(self.arch).state_dict()
        ours = self.encoder()
        odd = sorted(ours.keys() ^ theirs.keys())
        if odd:
            raise InputError(
                f"{self.methods[0]} cannot pretrain {self.arch}: {odd[0]} is in one of timm's and "
                f"mmpretrain's network alone; {self._remedy}"
            )

    @classmethod
    def side(cls, model: 'ConfigDict') -> int | None:
        return model.get('input_size', 224)

    @property
    def trained(self) -> nn.Module:
        return self.model

    def encoder(self) -> dict[str, torch.Tensor]:
        return timm_tensors(self.model.backbone)

    def settings(self) -> dict[str, str]:
        return {'format': 'mmpretrain', 'input_size': str(self.input_size)}

    @property
    def shown_side(self) -> int | None:
        return self.input_size

    @torch.no_grad()
    def reconstruct(self, pixels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        device = next(self.parameters()).device
        mean_311, std_311 = (value.to(device) for value in colours_of(self.data_preprocessor))
        pixels_B3HW = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
        with evaluating(self), _seeded(seed, device):
            answer_B3HW, hidden_B1HW = self.paint((pixels_B3HW - mean_311) / std_311)
        found = compose(pixels_B3HW, ~hidden_B1HW, answer_B3HW * std_311 + mean_311, mean_311)
        return {name: image.numpy() for name, image in vars(found).items()}

    @abstractmethod
    def paint(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The network's answer everywhere, as a normalised image, and the bool mask ``(B, 1, H, W)`` of what was
        hidden from it."""


def describe(arch: str) -> nn.Module:
    """timm's network, without memory for its weights."""
    with shapes_only():
        return create_network(arch)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within, all generators start from ``seed``; afterwards they go on as if nothing was drawn."""
    with torch.random.fork_rng([device] if device.type == 'cuda' else []), drawing_from(seed):
        if device.type == 'cuda':
            torch.cuda.manual_seed(seed)
        yield
