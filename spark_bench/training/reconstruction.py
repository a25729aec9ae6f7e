"""Reconstructions of a few fixed images with fixed masks: the same for every method and every epoch."""

import numpy as np
from timm.utils import unwrap_model
from torch import nn

from spark_bench.data.images.sources import spread
from spark_bench.data.pretraining import Images

SHOWN_IMAGES = 6
SHOWN_SEED = 2023


def load_images(model: nn.Module, dataset: Images) -> np.ndarray:
    """A few images from all over a data set at the model's input size, uint8 (n, H, W, 3).

    Args:
        model: :class:`~spark_bench.models.pretraining.PretrainingModel` that reconstructs, perhaps wrapped for several
            processes.
    """
    side = unwrap_model(model).shown_side
    images = (dataset.read(index)[0] for index in spread(dataset.source, SHOWN_IMAGES))
    return np.stack([np.asarray(image.resize((side, side))) for image in images])


def reconstruct(model: nn.Module, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Reconstruct images, leaving the model's mode, its statistics and all random generators as they are.

    Args:
        model: see :func:`load_images`.
        pixels: uint8 (n, H, W, 3).

    Returns:
        dict of uint8 arrays (n, H, W, 3): ``original``, ``masked``, ``reconstruction``, ``pasted``.
    """
    return unwrap_model(model).reconstruct(pixels, SHOWN_SEED)
