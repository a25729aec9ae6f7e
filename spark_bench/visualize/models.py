"""Whole pretraining models from files: SparK with its decoder, as the weights describe themselves."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pretrain.spark import build_spark
from spark_bench import checkpoints
from spark_bench.errors import InputError


@dataclass(frozen=True)
class ModelFile:
    """A file with a whole pretraining model, and what is needed to build that model.

    Attributes:
        path: the file.
        label: how figures call it.
    """

    path: str
    label: str
    arch: str
    input_size: int
    mask_ratio: float
    ablation: str
    decoder_width: int
    patch_size: int | None = None


def describe(path, arch=None, input_size=None, mask_ratio=None):
    """Read what a weights file says of itself; the paper's values stand where it is silent.

    Args:
        path: ``.safetensors`` with a header as pretraining writes it, or a checkpoint without one.
        arch: timm name for a file that does not give its own.
        input_size: side of the pictures in pixels, in place of the file's.
        mask_ratio: in place of the file's.

    Raises:
        InputError: for a file that is absent or whose header makes no sense, or an architecture that nobody names.
    """
    if not Path(path).is_file():
        raise InputError(f'no weights at {path}: give the spark.safetensors of a pretraining run with --weights')
    header = checkpoints.read_metadata(path)
    arch = header.get('arch') or arch
    if not arch:
        raise InputError(f'{path} does not say its architecture: name it with --arch')
    try:
        file = ModelFile(
            path=str(path), label=header.get('method') or Path(path).stem, arch=arch,
            input_size=input_size or int(header.get('input_size', 224)),
            mask_ratio=mask_ratio or float(header.get('mask_ratio', 0.6)),
            ablation=header.get('ablation', 'spark'), decoder_width=int(header.get('decoder_width', 768)),
            patch_size=int(header['patch_size']) if 'patch_size' in header else None)
        if not (file.input_size > 0 and 0 < file.mask_ratio < 1 and file.decoder_width > 0):
            raise ValueError(f'input_size {file.input_size}, mask_ratio {file.mask_ratio}, '
                             f'decoder_width {file.decoder_width}')
    except ValueError as error:
        raise InputError(f'the header of {path} is not one of a pretraining model ({error}): pretrain again') from error
    return file


def load_model(file, device='cpu'):
    """Build and fill the model of a :class:`ModelFile`, in evaluation mode; no random state is disturbed.

    Raises:
        InputError: where the file is no whole model, or does not fit its description.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_spark(file.arch, file.input_size, file.mask_ratio, file.ablation,
                            decoder_width=file.decoder_width, patch_size=file.patch_size)
    try:
        checkpoints.load(model, file.path)
    except InputError as error:
        if any('dec' in name for name in checkpoints.read_tensors(file.path)):
            raise
        raise InputError(f'{file.path} holds an encoder alone: a reconstruction needs the whole pretraining model, '
                         'which pretraining writes as spark.safetensors') from error
    return model.to(device).eval()


def check_device(name):
    """Return the torch device called ``name``; raise :class:`InputError` where it is not available."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'device {name!r} is not available here: choose cpu, or cuda on a machine that has it'
                         ) from error
    return device
