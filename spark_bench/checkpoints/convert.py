"""The same weights in another format."""

import os
from pathlib import Path

from spark_bench.checkpoints import architectures
from spark_bench.checkpoints.contents import Contents, open_checkpoint
from spark_bench.checkpoints.files.reading import demand_utf8
from spark_bench.checkpoints.formats import network_adapter
from spark_bench.checkpoints.formats.spark import OwnSparK
from spark_bench.checkpoints.pretraining import spark_settings
from spark_bench.checkpoints.writing import save_safetensors, save_torch, spark_layout
from spark_bench.errors import InputError

TARGETS = ('timm', 'official', 'mmdet', 'mmpretrain', 'spark', 'safetensors')
_ADAPTERS = {'timm': 'timm', 'official': 'official', 'mmdet': 'mmpretrain', 'mmpretrain': 'mmpretrain'}
_SUFFIXES = {'timm': '.safetensors', 'safetensors': '.safetensors'}


def convert(
    path: Path | str,
    to: str,
    output: Path | str | None = None,
    force: bool = False,
    key_prefix: str | None = None,
    arch: str | None = None,
) -> tuple[Path, int, list[str]]:
    """Write the weights of ``path`` in another format.

    Args:
        path: checkpoint in any known format.
        to: one of ``TARGETS``. ``safetensors`` keeps everything, in this project's names.
        output: file to write, ``.safetensors`` or ``.pth``; default beside the input, ``NAME.TO.SUFFIX``.
        force: overwrite an existing file.
        key_prefix: beginning of the names of the network to convert, of a file that holds several.
        arch: see :func:`~spark_bench.checkpoints.contents.open_checkpoint`.

    Returns:
        ``(output, number of tensors written, names left out)``.

    Raises:
        InputError: where the file cannot be read, holds no whole network of a known architecture, the conversion
            is not possible, or the output exists or cannot be written.
    """
    contents = open_checkpoint(path, key_prefix, arch)
    _check_target(contents, to)
    output = Path(output) if output else Path(path).with_suffix(f'.{to}{_SUFFIXES.get(to, ".pth")}')
    _check_output(output, to, force)
    tensors = contents.canonical()
    metadata = {
        **{str(name): str(value) for name, value in contents.file.metadata.items()},
        'arch': contents.arch,
        'converted_from': contents.naming.format,
        'format': to,
    }
    renamed = _rename(contents, tuple(tensors), to)
    written = {new: _value(contents, tensors, name, to) for name, new in renamed.items() if new is not None}
    if to == 'spark':
        save_torch(spark_layout(contents.naming.family, written, metadata), output)
    else:
        _save(written, metadata, to, output)
    homeless = [
        name for name, target in contents.naming.canonical.items() if target in renamed and renamed[target] is None
    ]
    return output, len(written), [*homeless, *contents.left_out()]


def possible_targets(contents: Contents) -> tuple[str, ...]:
    """The formats that a file can be converted to."""
    return () if contents.faults else tuple(to for to in TARGETS if _refusal(contents, to) is None)


def _check_target(contents, to):
    if to not in TARGETS:
        raise InputError(f'unknown format {to!r}: choose one of {", ".join(TARGETS)}')
    # A conversion must not launder a broken file.
    reason = '; '.join(contents.faults) or _refusal(contents, to)
    if reason:
        possible = possible_targets(contents)
        hint = f'possible: --to {", ".join(possible)}' if possible else 'give the checkpoint of a whole network'
        raise InputError(f'{contents.file.path} cannot be converted to {to}: {reason}; {hint}')


def _refusal(contents, to):
    """Why a conversion is not possible; None where it is."""
    naming = contents.naming
    if naming.family is None:
        return None if to in ('timm', 'safetensors') else 'its names are not of a format that is known here'
    if to == 'spark':
        if naming.family not in ('convnext', 'resnet'):
            return f"the authors' format holds ResNets and ConvNeXts, not a {naming.family}"
        if not naming.has_decoder:
            return 'that format has a decoder, and this file holds the encoder only'
    if to == 'official' and naming.family != 'convnext':
        return f'official names are those of ConvNeXt, and this is a {naming.family}'
    batch_norms = any(name.endswith('running_mean') for name in naming.canonical.values())
    if to in ('mmdet', 'mmpretrain') and naming.family == 'resnet' and not batch_norms:
        return 'its norms are no batch norms, which have other names there'
    if to == 'mmdet' and naming.family == 'vit':
        return 'mmdet has no plain ViT'
    if naming.has_decoder and to in ('spark', 'safetensors'):
        try:
            spark_settings(contents)
        except InputError as error:
            return str(error)
    names = [name for name in naming.canonical.values() if naming.kind(name) == 'encoder']
    homeless = [name for name, new in _rename(contents, names, to).items() if new is None]
    if homeless:
        return f'that format has no place for {homeless[0]} and {len(homeless) - 1} more tensors of the encoder'
    return None


def _check_output(output, to, force):
    if output.suffix not in ('.safetensors', '.pth', '.pt'):
        raise InputError(f'{output}: give an output that ends in .safetensors or .pth')
    if not output.parent.is_dir():
        raise InputError(f'{output}: there is no folder {output.parent}: create it first')
    if output.is_dir():
        raise InputError(f'{output} is a folder: give the name of a file')
    demand_utf8(output)
    if os.path.lexists(output) and not force:
        raise InputError(f'{output} exists: give --force to overwrite it, or another --output')
    if to == 'spark' and output.suffix != '.pth':
        raise InputError(f"{output}: the authors' format is a .pth file")


def _rename(contents, names, to):
    """From canonical name to the new one; None for what the format has no place for."""
    naming = contents.naming
    if to in ('safetensors', 'spark'):
        prefixes = {'encoder': '', 'decoder': ''} if to == 'spark' else {'encoder': '', 'head': ''}
        if to == 'safetensors' and naming.has_decoder:
            prefixes = {'encoder': OwnSparK.network_prefix, 'decoder': ''}
        return {name: prefixes[naming.kind(name)] + name if naming.kind(name) in prefixes else None for name in names}
    if naming.family is None:
        return {name: name for name in names}
    kept = {'mmdet': ('encoder', 'output norm'), 'timm': ('encoder', 'head')}.get(
        to, ('encoder', 'head', 'output norm')
    )
    adapter = network_adapter(naming.family, _ADAPTERS[to])
    chosen = [name for name in names if naming.kind(name) in kept]
    return dict.fromkeys(names) | adapter.foreign_names(chosen)


def _value(contents, tensors, name, to):
    """The tensor in the layout of the format."""
    value, family = tensors[name], contents.naming.family
    if to in ('timm', 'safetensors'):
        return value.reshape(architectures.network_shapes(contents.arch).get(name, value.shape))
    return value if to == 'spark' else network_adapter(family, _ADAPTERS[to]).value_out(name, value)


def _save(tensors, metadata, to, output):
    if output.suffix == '.safetensors':
        save_safetensors(tensors, output, metadata)
        return
    whole = {name: value.contiguous().clone() for name, value in tensors.items()}
    key = 'state_dict' if to in ('mmdet', 'mmpretrain') else 'model'
    save_torch({key: whole, 'meta': metadata} if key == 'state_dict' else {**metadata, key: whole}, output)
