"""Of which pixels weights were made, where a file, or what lies beside it, says so."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from spark_bench.checkpoints.files.reading import CheckpointFile

# Beside weights as timm and transformers keep them: file, keys down to a dict, names of mean and deviation in it.
_BESIDE = (
    ('config.json', ('pretrained_cfg',), 'mean', 'std'),
    ('preprocessor_config.json', (), 'image_mean', 'image_std'),
)
# Deviations are written with two digits or three, and of pixels of 0 … 255 or of 0 … 1.
_CLOSE = 0.005
# A config is a few kilobytes; what is larger is none.
_LARGEST = 1_000_000


def other_pixels(file: CheckpointFile) -> str | None:
    """A note where weights were made for images normalised otherwise than every recipe here normalises them.

    A network that is trained on gets used to it; a frozen one, or a classifier as it is, gives worse figures.

    Args:
        file: the weights. timm's and transformers' formats keep mean and deviation in a JSON file beside them,
            OpenMMLab's in the config that the file holds.

    Returns:
        the note; None where they are ImageNet's, or nothing says what they are.
    """
    for source, mean, std in _stated(file):
        ours = (*IMAGENET_DEFAULT_MEAN, *IMAGENET_DEFAULT_STD)
        if any(abs(value - own) > _CLOSE for value, own in zip((*mean, *std), ours, strict=True)):
            return (
                f'{source} says that its pixels have mean {_shown(mean)} and deviation {_shown(std)}: here all are '
                "normalised by ImageNet's, so that what is measured without training the network on is not its best"
            )
    return None


def other_than(file: CheckpointFile, preprocessor: nn.Module | None) -> str | None:
    """A note where a detector's config normalises images otherwise than the config that its weights' file holds.

    Args:
        preprocessor: of the detector, with the buffers ``mean`` and ``std`` where it normalises.
    """
    stated = _of_config(file)
    own = [getattr(preprocessor, name, None) for name in ('mean', 'std')]
    if stated is None or not all(isinstance(values, torch.Tensor) for values in own):
        return None
    wanted, given = (
        [value for values in pair for value in values] for pair in (stated, [v.flatten().tolist() for v in own])
    )
    if all(abs(a - b) <= 255 * _CLOSE for a, b in zip(wanted, given, strict=True)):
        return None
    return (
        f'{file.path} was made for pixels of mean {_shown(stated[0])} and deviation {_shown(stated[1])}, the config '
        'gives it others: what is measured is not its best; give the config that it was trained by'
    )


def _of_config(file: CheckpointFile) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and deviation of the config that a file of OpenMMLab holds, of pixels of 0 … 255."""
    mean, std = (_three(_parsed(file.metadata.get(name))) for name in ('pixel_mean', 'pixel_std'))
    return (mean, std) if mean and std else None


def _stated(file: CheckpointFile) -> Iterator[tuple[str, Sequence[float], Sequence[float]]]:
    own = _of_config(file)
    if own:
        yield f'the config in {file.path}', [value / 255 for value in own[0]], [value / 255 for value in own[1]]
    for name, within, mean_name, std_name in _BESIDE:
        beside = Path(file.path).with_name(name)
        stated = _parsed(_text(beside))
        for key in within:
            stated = stated.get(key) if isinstance(stated, dict) else None
        if isinstance(stated, dict):
            mean, std = _three(stated.get(mean_name)), _three(stated.get(std_name))
            if mean and std:
                yield str(beside), mean, std


def _text(path: Path) -> bytes | None:
    """What a small file holds; None for what cannot be read, as nobody asked for it."""
    try:
        return path.read_bytes() if path.stat().st_size <= _LARGEST else None
    except OSError:
        return None


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, (str, bytes)) else None
    except (ValueError, RecursionError):
        return None


def _three(values: Any) -> Sequence[float] | None:
    numbers = isinstance(values, list) and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    return values if numbers and len(values) == 3 else None


def _shown(values: Sequence[float]) -> str:
    return f'({", ".join(f"{value:.3g}" for value in values)})'
