"""Whole pretraining models from files: SparK with its decoder, as the weights describe themselves."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from pretrain.spark import SparK, build_spark
from pretrain.visualize import IMAGENET_MEAN, IMAGENET_STD
from spark_bench import checkpoints
from spark_bench.checkpoints.contents import open_checkpoint
from spark_bench.checkpoints.pretraining import spark_settings, stated_settings
from spark_bench.errors import InputError


@dataclass(frozen=True)
class ModelFile:
    """A file with a whole pretraining model, and what is needed to build that model."""

    path: str
    label: str  # how figures call it
    arch: str
    input_size: int
    mask_ratio: float
    ablation: str
    decoder_width: int
    patch_size: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN  # of the three channels in pixels, which images are normalised by
    std: tuple[float, ...] = IMAGENET_STD


def describe(
    path: Path | str, arch: str | None = None, input_size: int | None = None, mask_ratio: float | None = None
) -> ModelFile:
    """Read what a weights file says of itself; the paper's values stand where it is silent.

    Args:
        path: a checkpoint in any known format and container; the decoder's width is that of its tensors.
        arch: timm name for a file that does not give its own.
        input_size: side of the images in pixels, in place of the file's.
        mask_ratio: in place of the file's.

    Raises:
        InputError: for a file that is absent, whose values make no sense, or whose decoder is not whole; or an
            architecture that nobody names.
    """
    if not Path(path).is_file():
        raise InputError(f'no weights at {path}: give the spark.safetensors of a pretraining run with --weights')
    contents = open_checkpoint(path)
    said = contents.file.metadata
    arch = said.get('arch') or arch
    if not arch:
        raise InputError(
            f'{path} does not say its architecture: name it with --arch'
            + (f' (its tensors are those of {contents.arch})' if contents.arch else '')
        )
    settings = {**stated_settings(contents), 'arch': arch}
    if contents.arch == arch and contents.naming.has_decoder and not contents.faults:
        # Which ablation a silent file is of shows in its tensors.
        settings = spark_settings(contents)
    given = {name: value for name, value in (('input_size', input_size), ('mask_ratio', mask_ratio)) if value}
    settings = {**settings, 'ablation': settings['ablation'] or 'spark', **given}
    colours = {name: values for name in ('mean', 'std') if (values := _three_numbers(said.get(name))) is not None}
    return ModelFile(path=str(path), label=said.get('method') or Path(path).stem, **settings, **colours)


def _three_numbers(text):
    try:
        values = json.loads(text)
        return tuple(map(float, values)) if len(values) == 3 else None
    except (TypeError, ValueError):
        return None


def load_model(file: ModelFile, device: torch.device | str = 'cpu') -> SparK:
    """Build and fill the model of a :class:`ModelFile`, in evaluation mode; no random state is disturbed.

    Raises:
        InputError: where the file is no whole model, or does not fit its description.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_spark(
            file.arch,
            file.input_size,
            file.mask_ratio,
            file.ablation,
            decoder_width=file.decoder_width,
            patch_size=file.patch_size,
        )
    try:
        checkpoints.load(model, file.path)
    except InputError as error:
        if any('dec' in name for name in checkpoints.read_tensors(file.path)):
            raise
        raise InputError(
            f'{file.path} holds an encoder alone: a reconstruction needs the whole pretraining model, '
            'which pretraining writes as spark.safetensors'
        ) from error
    return model.to(device).eval()
