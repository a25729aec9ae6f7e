"""Writing weights, atomically: a safetensors file, a torch file, and the layout of SparK's authors."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from spark_bench.checkpoints.formats import network_adapter
from spark_bench.checkpoints.formats.spark import AuthorsSparK
from spark_bench.checkpoints.naming import PRETRAINING, identify
from spark_bench.errors import InputError
from spark_bench.files import new_file

if TYPE_CHECKING:
    from pretrain.spark import SparK

# Of a model of ours, what the authors' files have no word for.
_OWN = ('method', 'ablation', 'patch_size', 'config_hash', 'mean', 'std')
# Mean and standard deviation of ImageNet's pixels, as the authors' buffers were meant to hold them.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def save(model: nn.Module, path: Path | str, metadata: dict[str, str]) -> None:
    """Write the weights of ``model`` as safetensors, atomically.

    Args:
        model: any module.
        path: file to write.
        metadata: dict of strings kept in the file's header.

    Raises:
        InputError: where the file cannot be written.
    """
    save_safetensors(model.state_dict(), path, metadata)


def save_safetensors(tensors: Mapping[str, torch.Tensor], path: Path | str, metadata: dict[str, str]) -> None:
    """Write a dict of tensors as safetensors, atomically. Raises InputError where the file cannot be written."""
    # clone: two names of one storage are two tensors in the file.
    whole = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with new_file(path) as partial:
        mode = partial.stat().st_mode
        save_file(whole, partial, metadata)
        partial.chmod(mode)  # safetensors may put a file of its own in the place of the one that was there


def save_torch(contents: Mapping[str, Any], path: Path | str) -> None:
    """Write a dict with ``torch.save``, atomically; weights-only loading reads it. Raises InputError as above."""
    with new_file(path) as partial:
        torch.save(contents, partial)


def timm_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a ResNet, ConvNeXt, Swin or ViT of any library by timm's names, in timm's layout.

    What timm's network computes itself (tables of positions), or has no place for (mask tokens), is left out.
    """
    values = network.state_dict()
    naming = identify(tuple(values), type(network).__name__)
    return {
        canonical: naming.adapter.value_in(canonical, values[name].detach().cpu())
        for name, canonical in naming.canonical.items()
        if naming.kind(canonical) in ('encoder', 'head')
    }


def save_spark(model: 'SparK', path: Path | str, metadata: Mapping[str, Any]) -> None:
    """Write a :class:`pretrain.SparK` in the layout of the authors' ``*_withdecoder_*_spark_style.pth``.

    Args:
        model: ``pretrain.SparK`` around a timm ResNet or ConvNeXt.
        path: file to write.
        metadata: ``arch``, and whatever of ``input_size``, ``epoch``, ``performance_desc``, ``args``,
            ``mask_ratio`` is known; what is not is taken from the model.

    Raises:
        InputError: for an encoder that the authors' code does not know.
    """
    naming = identify(tuple(model.state_dict()), type(model).__name__)
    side = model.grid * model.encoder.stride
    metadata = {'input_size': side, 'mask_ratio': model.mask_ratio, **metadata}
    state = model.state_dict()
    tensors = {
        canonical: naming.adapter.value_in(canonical, state[name].cpu()) for name, canonical in naming.canonical.items()
    }
    save_torch(spark_layout(naming.family, tensors, metadata), path)


def spark_layout(
    family: str | None, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The authors' dict, from canonical tensors.

    Raises:
        InputError: for a family that is neither ResNet nor ConvNeXt, or tensors without decoder.
    """
    style = {'convnext': 'official', 'resnet': 'timm'}.get(family)
    if style is None:
        raise InputError(
            "the authors' format holds ResNets and ConvNeXts only: save this model with spark_bench.checkpoints.save"
        )
    side = int(_number(metadata, 'input_size', 224))
    around = AuthorsSparK()
    network = {name: value for name, value in tensors.items() if not name.startswith(PRETRAINING)}
    module = {
        around.network_prefix + name: value
        for name, value in network_adapter(family, style).from_canonical(network).items()
    }
    module |= {around.foreign_name(name): tensors[name] for name in tensors if name not in network}
    module = {name: value.contiguous().clone() for name, value in module.items()}
    module |= {
        'imn_m': torch.tensor(_MEAN).view(1, 3, 1, 1),
        'imn_s': torch.tensor(_STD).view(1, 3, 1, 1),
        'norm_black': torch.zeros(1, 3, side, side),
    }
    module['config'] = {
        'mask_ratio': _number(metadata, 'mask_ratio', 0.6),
        'densify_norm_str': 'bn' if family == 'resnet' else 'ln',
        'sbn': False,
        'hierarchy': sum(name.endswith('.mask_token') for name in tensors),
        'sparse_encoder.input_size': side,
        'dense_decoder.width': tensors['decoder.dec.0.up_sample.weight'].shape[0],
    }
    # Not of the authors: what a model of ours cannot be built without.
    own = {name: str(metadata[name]) for name in _OWN if name in metadata}
    return {
        **own,
        'args': str(metadata.get('args', '')),
        'input_size': side,
        'arch': str(metadata.get('arch', '')),
        'epoch': int(_number(metadata, 'epoch', 0)),
        'performance_desc': str(metadata.get('performance_desc', '')),
        'module': module,
        'is_pretrain': True,
    }


def _number(metadata, name, default):
    value = metadata.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f'metadata {name}={value!r} is not a number') from error
    # norm_black has input_size squared pixels.
    if not 0 <= number <= 10_000:
        raise InputError(f'metadata {name}={value!r} is not possible')
    return number
