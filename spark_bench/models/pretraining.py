"""What every method of pretraining is to the rest of the project: one protocol, for recipes and for built models."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS
from torch import nn

from spark_bench.errors import InputError

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict


class PretrainingModel(ABC):
    """Base, beside mmengine's ``BaseModel``, of a model that pretrains an encoder.

    In mode ``loss`` its ``forward`` takes a preprocessed batch of its data set, key by key, and returns
    ``{'loss': scalar}``. What it draws at random comes from the default generators of its process, and what it keeps
    from step to step is in its state dict: so it follows the seed of a run, and goes on where a run was killed.

    Class attributes:
        methods: names that it goes by, of :data:`spark_bench.models.methods.METHODS`.
        file: stem of the file with the whole model.
        views: of :data:`spark_bench.data.views.VIEWS`, those that it takes; none for images in classes.
        data: the part of the embedded data set that it learns from where no data are named.
        labelled: whether it reads images in classes.
        accumulates: whether the gradients of several batches may make one update.
        synchronises: whether batch norm takes the statistics of all processes.
    """

    methods: ClassVar[tuple[str, ...]]
    file: ClassVar[str]
    views: ClassVar[tuple[str, ...]] = ()
    data: ClassVar[str] = 'unlabelled'
    labelled: ClassVar[bool] = False
    accumulates: ClassVar[bool] = True
    synchronises: ClassVar[bool] = True

    # Of a recipe, whose ``model`` is still a config.

    @classmethod
    def settle(cls, model: 'ConfigDict', asked: str | None = None) -> str:
        """The method of a recipe, made the one that is ``asked`` for; raises InputError where it cannot be that."""
        [method] = cls.methods
        if asked not in (None, method):
            raise InputError(
                f'--method {asked}: the recipe pretrains by {method}: leave the option away, or give a '
                f'recipe of {asked}'
            )
        return method

    @classmethod
    @abstractmethod
    def check(cls, cfg: 'Config') -> None:
        """Refuse a recipe that cannot be built, before data are read. Raises InputError naming the key."""

    @classmethod
    def side(cls, model: 'ConfigDict') -> int | None:
        """Side in pixels of the only images that the model takes; None where it takes any."""
        return None

    # Of a model.

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The part that is saved whole, and by whose names parameters are told."""

    @abstractmethod
    def encoder(self) -> dict[str, torch.Tensor]:
        """The weights that a transfer starts from, as timm names them."""

    def settings(self) -> dict[str, str]:
        """What, beside architecture and method, the file of the whole model says of itself."""
        return {}

    def no_weight_decay(self) -> set[str]:
        """Names, within ``trained``, of parameters of several dimensions that are never decayed."""
        return set()

    @property
    def shown_side(self) -> int | None:
        """Side in pixels of the images that :meth:`reconstruct` takes; None for a method without reconstruction."""
        return None

    def reconstruct(self, pixels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Reconstruct images; mode, statistics and random states stay as they are.

        Args:
            pixels: uint8 ``(n, P, P, 3)``.
            seed: of the masks.

        Returns:
            uint8 ``(n, P, P, 3)`` each: ``original``, ``masked``, ``reconstruction``, ``pasted``.
        """
        raise NotImplementedError(f'{type(self).__name__} reconstructs nothing')

    @contextlib.contextmanager
    def observable(self) -> Iterator[None]:
        """Within, every module is called as one, so that hooks see all outputs."""
        yield


def colours_of(preprocessor: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation, float ``(3, 1, 1)`` in units of pixels, by which images are normalised: 0 and 1 for none."""
    mean, std = getattr(preprocessor, 'mean', torch.zeros(1)), getattr(preprocessor, 'std', torch.ones(1))
    return mean.view(-1, 1, 1).expand(3, 1, 1), std.view(-1, 1, 1).expand(3, 1, 1)


def pretrainer_of(cfg: 'Config', path: str) -> type[PretrainingModel]:
    """The class of a recipe's model.

    Raises:
        InputError: for a config that is no recipe of pretraining.
    """
    kind: Any = MODELS.get(str(cfg.model.get('type')))
    if not isinstance(kind, type) or not issubclass(kind, PretrainingModel):
        raise InputError(
            f'{path} is no recipe of pretraining (its model is {cfg.model.get("type")}): take one of pretrain/configs'
        )
    return kind


@MODELS.register_module()
class ViewsPreprocessor(ImgDataPreprocessor):
    """mmengine's preprocessor for several views of each image: ``inputs`` is a list of batches, one a view."""

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalise every view."""
        views = [
            super(ViewsPreprocessor, self).forward({'inputs': view}, training)['inputs'] for view in data['inputs']
        ]
        return {**self.cast_data({key: value for key, value in data.items() if key != 'inputs'}), 'inputs': views}
