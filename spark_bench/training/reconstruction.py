"""Reconstructions of a few fixed images with fixed masks: the same for every method and every epoch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

if TYPE_CHECKING:
    from spark_bench.data.pretraining import Images

SHOWN_IMAGES = 6
SHOWN_SEED = 2023


def load_images(model: nn.Module, dataset: 'Images', indices: Iterable[int]) -> np.ndarray | None:
    """The chosen images at the model's input size, uint8 (n, H, W, 3); None where it reconstructs nothing.

    Args:
        model: :class:`~spark_bench.models.pretraining.PretrainingModel`, perhaps wrapped for several processes.
        dataset: :class:`~spark_bench.data.pretraining.Images`.
        indices: numbers of images.
    """
    side = getattr(model, 'module', model).shown_side
    return None if side is None else np.stack(
        [np.asarray(dataset.read(index)[0].resize((side, side))) for index in indices])


def reconstruct(model: nn.Module, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Reconstruct images, leaving the model's mode, its statistics and all random generators as they are.

    Args:
        model: see :func:`load_images`.
        pixels: uint8 (n, H, W, 3).

    Returns:
        dict of uint8 arrays (n, H, W, 3): ``original``, ``masked``, ``reconstruction``, ``pasted``.
    """
    return getattr(model, 'module', model).reconstruct(pixels, SHOWN_SEED)
