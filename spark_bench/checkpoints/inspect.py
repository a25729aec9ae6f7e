"""``spark-bench inspect``: what a file of weights is, and what can be done with it."""

import json
import math
from collections import Counter
from pathlib import Path

from spark_bench.checkpoints import architectures
from spark_bench.checkpoints.contents import not_finite, open_checkpoint
from spark_bench.checkpoints.convert import possible_targets

_SHOWN = 3


def main(args):
    """Body of the command: print what ``args.file`` is; 1 where it has problems."""
    report = inspect(args.file)
    print(json.dumps(report, indent=2, ensure_ascii=False) if args.json else as_text(report))
    return 1 if report['problems'] else 0


def inspect(path):
    """Describe a checkpoint.

    Returns:
        dict of what ``--json`` prints: file, bytes, container, metadata, format, arch, parts (tensors and
        parameters of each), dtypes, initialises, converts_to, left_out, problems.

    Raises:
        InputError: where the file cannot be read.
    """
    contents = open_checkpoint(path)
    tensors, naming = contents.file.tensors, contents.naming
    return {
        'file': str(path), 'bytes': Path(path).stat().st_size, 'container': contents.file.container,
        'metadata': {name: _printable(value) for name, value in contents.file.metadata.items()},
        'format': naming.format, 'family': naming.family, 'arch': contents.arch,
        'description': contents.arch or architectures.describe(naming.family, contents.shapes()),
        'tensors': len(tensors), 'parameters': sum(_parameters(name, tensors[name]) for name in tensors),
        'parts': _parts(contents),
        'dtypes': dict(Counter(str(tensor.dtype).removeprefix('torch.') for tensor in tensors.values())),
        'initialises': _initialises(contents), 'converts_to': list(possible_targets(contents)),
        'left_out': [*naming.dead, *contents.file.left_out], 'problems': _problems(contents)}


def as_text(report):
    """The report for a person."""
    lines = [('file', f'{report["file"]} ({report["bytes"] / 1e6:.1f} MB, {report["container"]})'),
             ('format', report['format']), ('architecture', report['description']),
             ('tensors', f'{report["tensors"]}, {report["parameters"]:,} parameters')]
    lines += [(f'  {part}', f'{count["tensors"]}, {count["parameters"]:,} parameters')
              for part, count in report['parts'].items()]
    lines += [('dtypes', ', '.join(f'{name} ({count})' for name, count in report['dtypes'].items()))]
    lines += [('metadata', ', '.join(f'{name}={value}' for name, value in report['metadata'].items()) or 'none')]
    lines += [('left out', ', '.join(report['left_out'])) for _ in report['left_out'][:1]]
    lines += [('initialises' if i == 0 else '', what) for i, what in enumerate(report['initialises'])]
    lines += [('converts to', ', '.join(report['converts_to']) or 'nothing')]
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
    buffers = ('running_mean', 'running_var', 'num_batches_tracked', 'relative_position_index', 'attn_mask', 'imn_m',
               'imn_s', 'norm_black')
    return 0 if name.endswith(buffers) else math.prod(tensor.shape)


def _initialises(contents):
    naming, arch, path = contents.naming, contents.arch, contents.file.path
    if not arch or not contents.complete:
        return []
    found = [f"timm: spark_bench.checkpoints.load(timm.create_model('{arch}'), '{path}')"]
    if naming.family in ('convnext', 'resnet', None):
        found.append(f'our detector and classifier: spark-bench detect|finetune --arch {arch} --weights {path}')
    found += {'convnext': ['mmpretrain and mmdet: the backbone mmpretrain.ConvNeXt of that size'],
              'resnet': ['mmpretrain and mmdet: the backbone ResNet of that depth', 'torchvision: the same ResNet'],
              'swin': ['mmpretrain and mmdet: the backbone SwinTransformer of that size'],
              'vit': ['mmpretrain: the backbone VisionTransformer of that size']}.get(naming.family, [])
    if naming.has_decoder:
        found.append(f"SparK with decoder: spark_bench.checkpoints.load(pretrain.build_spark('{arch}'), '{path}')")
    return found


def _problems(contents):
    naming = contents.naming
    problems = list(contents.notes)
    if naming.adapter is None and not contents.complete:
        problems.append('the names are of no format that is known here')
    elif contents.arch is None:
        problems.append('no timm architecture has these blocks and channels')
    elif not contents.complete:
        missing, other = architectures.differences(contents.arch, contents.shapes(), naming.family)
        problems += _listed(f'missing of {contents.arch}', missing)
        problems += _listed(f'of another shape than {contents.arch} has', other)
    elif naming.adapter is not None:
        reference = architectures.network_shapes(contents.arch)
        problems += _listed(f'not of {contents.arch}', [
            name for name in contents.shapes() if naming.kind(name) == 'encoder' and name not in reference])
    problems += _listed('unknown', naming.unknown)
    return problems + _listed('not finite', not_finite(contents.file.tensors))


def _listed(what, names):
    if not names:
        return []
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return [f'{len(names)} tensors {what}: {", ".join(names[:_SHOWN])}{more}']


def _printable(value):
    return ' '.join(value.split())[:200] if isinstance(value, str) else value
