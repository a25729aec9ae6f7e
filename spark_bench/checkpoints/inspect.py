"""What a file of weights is, and what can be done with it."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spark_bench.checkpoints import architectures
from spark_bench.checkpoints.contents import open_checkpoint
from spark_bench.checkpoints.convert import possible_targets
from spark_bench.checkpoints.pretraining import as_call, spark_settings
from spark_bench.errors import InputError, first_of

_SHOWN = 8
# timm's ResNets and ConvNeXts that torchvision has too.
_TORCHVISION = re.compile(
    r'resnet(18|34|50|101|152)|resnext(50_32x4d|101_32x8d|101_64x4d)|wide_resnet(50|101)_2|'
    r'convnext_(tiny|small|base|large)'
)


def inspect(path: Path | str, key_prefix: str | None = None, arch: str | None = None) -> dict[str, Any]:
    """Describe a checkpoint.

    Args:
        path: the file.
        key_prefix: beginning of the names of the network to describe, of a file that holds several.
        arch: see :func:`~spark_bench.checkpoints.contents.open_checkpoint`.

    Returns:
        dict of what ``--json`` prints: file, bytes, container, metadata, format, prefix of the network's names, arch,
        parts (tensors and parameters of each), dtypes, initialises, converts_to, left_out, notes, problems. Without
        problems, ``load`` fills the network of that ``arch`` from the file, and ``convert`` writes it.

    Raises:
        InputError: where the file cannot be read, or holds several networks and none was chosen.
    """
    contents = open_checkpoint(path, key_prefix, arch)
    initialises, notes = _initialises(contents, key_prefix)
    tensors, naming = contents.file.tensors, contents.naming
    return {
        'file': str(path),
        'bytes': Path(path).stat().st_size,
        'container': contents.file.container,
        'metadata': {
            name: ' '.join(value.split())[:200] if isinstance(value, str) else value
            for name, value in contents.file.metadata.items()
        },
        'format': naming.format,
        'prefix': naming.prefix,
        'family': naming.family,
        'arch': contents.arch,
        'description': contents.arch or architectures.describe(naming.family, contents.shapes('encoder', 'head')),
        'tensors': len(tensors),
        'parameters': sum(_parameters(name, tensors[name]) for name in tensors),
        'parts': _parts(contents),
        'dtypes': dict(Counter(str(tensor.dtype).removeprefix('torch.') for tensor in tensors.values())),
        'initialises': initialises,
        'converts_to': list(possible_targets(contents)),
        'left_out': list(contents.left_out()),
        'notes': [*contents.notes, *notes],
        'problems': [*contents.contradictions, *contents.faults],
    }


def as_text(report: Mapping[str, Any]) -> str:
    """The report for a person."""
    lines = [
        ('file', f'{report["file"]} ({report["bytes"] / 1e6:.1f} MB, {report["container"]})'),
        ('format', report['format'] + (f', under {report["prefix"]!r}' if report['prefix'] else '')),
        ('architecture', report['description']),
        ('tensors', f'{report["tensors"]}, {report["parameters"]:,} parameters'),
    ]
    lines += [
        (f'  {part}', f'{count["tensors"]}, {count["parameters"]:,} parameters')
        for part, count in report['parts'].items()
    ]
    lines += [('dtypes', ', '.join(f'{name} ({count})' for name, count in report['dtypes'].items()))]
    lines += [('metadata', ', '.join(f'{name}={value}' for name, value in report['metadata'].items()) or 'none')]
    left_out = report['left_out']
    if left_out:
        lines += [('left out', first_of(left_out, _SHOWN) + ' (--json lists them)' * bool(left_out[_SHOWN:]))]
    lines += [('initialises' if i == 0 else '', what) for i, what in enumerate(report['initialises'])]
    lines += [('converts to', ', '.join(report['converts_to']) or 'nothing')]
    lines += [('note', what) for what in report['notes']]
    lines += [('problem', what) for what in report['problems']] or [('problems', 'none')]
    return '\n'.join(f'{label:14}{what}' for label, what in lines)


def _parts(contents):
    parts = {}
    naming = contents.naming
    for name, tensor in contents.file.tensors.items():
        target = naming.canonical.get(name)
        part = naming.kind(target) if target else 'without use' if name in naming.dead else 'unknown'
        count = parts.setdefault(part, {'tensors': 0, 'parameters': 0})
        count['tensors'] += 1
        count['parameters'] += _parameters(name, tensor)
    return parts


def _parameters(name, tensor):
    """Number of learnt values: statistics, counters and tables of positions are none."""
    buffers = (
        'running_mean',
        'running_var',
        'num_batches_tracked',
        'relative_position_index',
        'attn_mask',
        'imn_m',
        'imn_s',
        'norm_black',
    )
    return 0 if name.endswith(buffers) else math.prod(tensor.shape)


def _initialises(contents, key_prefix):
    """``(what the file can fill, notes)``; the commands and the Python stand as they can be carried out."""
    naming, arch, path = contents.naming, contents.arch, contents.file.path
    if contents.faults:
        return [], []
    chosen = '' if key_prefix is None else f', key_prefix={key_prefix!r}'
    found = [f'timm: spark_bench.checkpoints.load(timm.create_model({arch!r}), {path!r}{chosen})']
    if naming.family in ('convnext', 'resnet', None):
        words = f'--arch {arch} --weights {shlex.quote(path)}'
        words += '' if key_prefix is None else f' --key-prefix {shlex.quote(key_prefix)}'
        found += [f'our detector: spark-bench detect {words}', f'our classifier: spark-bench finetune {words}']
    if 'mmpretrain' in possible_targets(contents):
        found += {
            'convnext': ['mmpretrain and mmdet: the backbone mmpretrain.ConvNeXt of that size'],
            'resnet': [f'mmpretrain and mmdet: the backbone {"ResNeXt" if "next" in arch else "ResNet"} of that depth'],
            'swin': ['mmpretrain and mmdet: the backbone SwinTransformer of that size'],
            'vit': ['mmpretrain: the backbone VisionTransformer of that size'],
        }[naming.family]
    if _TORCHVISION.fullmatch(arch):
        found.append('torchvision: the network of the same name')
    if not naming.has_decoder:
        return found, []
    try:
        model = as_call(spark_settings(contents))
    except InputError as error:
        return found, [str(error)]
    return [*found, f'SparK with decoder: spark_bench.checkpoints.load({model}, {path!r}{chosen})'], []
