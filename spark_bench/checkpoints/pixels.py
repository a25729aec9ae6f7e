"""Of which pixels weights were made, where a file, or what lies beside it, says so."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

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


def _stated(file: CheckpointFile) -> Iterator[tuple[str, Sequence[float], Sequence[float]]]:
    mean, std = (_three(_parsed(file.metadata.get(name))) for name in ('pixel_mean', 'pixel_std'))
    if mean and std:
        # Of pixels of 0 … 255, as OpenMMLab counts.
        yield f'the config in {file.path}', [value / 255 for value in mean], [value / 255 for value in std]
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
