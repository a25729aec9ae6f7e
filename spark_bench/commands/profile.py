"""time and memory of the packed engine against the reference"""

import json
import os
from dataclasses import asdict

from spark_bench.commands.parsing import Namespace, Parser, positive
from spark_bench.errors import InputError

_SETTINGS = ('input_size', 'batch_size', 'mask_ratio', 'rounds', 'device', 'amp', 'channels_last')


def add_options(parser: Parser) -> None:
    parser.add_argument(
        'arch',
        nargs='*',
        metavar='ARCH',
        default=['resnet50', 'convnext_small', 'convnext_base'],
        help='timm convnets (default: resnet50 convnext_small convnext_base)',
    )
    parser.add_argument('--input-size', type=positive, default=224, metavar='PIXELS')
    parser.add_argument('--batch-size', type=positive, default=8, metavar='N')
    parser.add_argument('--mask-ratio', type=float, default=0.6, metavar='RATIO')
    parser.add_argument(
        '--rounds',
        type=positive,
        default=5,
        metavar='N',
        help='times each engine runs, in turn; the median is printed (default: 5)',
    )
    parser.add_argument('--threads', type=positive, metavar='N', help='CPU threads')
    parser.add_argument('--device', metavar='NAME', help='default: cuda where there is a GPU, else cpu')
    parser.add_argument('--amp', action='store_true', help='bf16 autocast')
    parser.add_argument('--channels-last', action='store_true', help='images and weights in channels-last layout')
    parser.add_argument(
        '--keep-memory', action='store_true', help='tell the allocator to keep freed memory, as training on a CPU does'
    )
    parser.add_argument('--json', metavar='FILE', help='also write the figures here')


def main(args: Namespace) -> int:
    """Measure each network, print the table and write the JSON."""
    # The profiler's own log (tracing marks, the search for a GPU) would stand in the middle of the table; it reads this
    # when torch is loaded.
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')
    import torch

    from spark_bench.devices import choose_device
    from spark_bench.files import claim_output, write_atomically
    from spark_bench.models import profiling
    from spark_bench.training.memory import keep_freed_memory

    args.device = str(choose_device(args.device))
    if args.json:
        output = claim_output(args.json, rb'\{\s*"settings":\s*\{\s*"input_size":', '--json')
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.keep_memory:
        keep_freed_memory()
    settings = {name: getattr(args, name) for name in _SETTINGS}
    figures = [figure for arch in args.arch for figure in profiling.measure(arch, **settings)]
    _show(figures, args)
    if args.json:
        settings = {
            **settings,
            'keep_memory': args.keep_memory,
            'threads': torch.get_num_threads(),
            'torch': torch.__version__,
        }
        contents = {'settings': settings, 'figures': [asdict(figure) for figure in figures]}
        try:
            write_atomically(output, json.dumps(contents, indent=1).encode())
        except OSError as error:
            raise InputError(f'--json {output} cannot be written: {error.strerror}') from error
    return 0


def _show(figures, args):
    import torch
    from rich.console import Console
    from rich.table import Table

    where = (
        torch.cuda.get_device_name(args.device)
        if args.device.startswith('cuda')
        else (f'CPU, {torch.get_num_threads()} threads')
    )
    kind = 'bf16 autocast' if args.amp else 'float32'
    table = Table(
        title=f'Forward + backward, {args.input_size} px, batch {args.batch_size}, mask {args.mask_ratio}, '
        f'{kind}, {where}; median of {args.rounds}'
    )
    for column in (
        'network',
        'part',
        'packed',
        'reference',
        'speed-up',
        'packed MB',
        'reference MB',
        'memory',
        'difference',
    ):
        table.add_column(column, justify='left' if column in ('network', 'part') else 'right')
    for packed, reference in zip(figures[::2], figures[1::2], strict=True):
        table.add_row(
            packed.arch,
            packed.part,
            f'{packed.total_s:.3f} s',
            f'{reference.total_s:.3f} s',
            f'{reference.total_s / packed.total_s:.2f}×',
            f'{packed.peak_bytes / 1e6:.0f}',
            f'{reference.peak_bytes / 1e6:.0f}',
            f'{packed.peak_bytes / reference.peak_bytes:.2f}×',
            f'{abs(packed.value / reference.value - 1):.0e}',
        )
    Console(width=120).print(table)
