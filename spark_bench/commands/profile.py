"""what a step of pretraining costs, part by part: the packed engine, the reference, and other codes, in one run"""

import json
import os
from dataclasses import asdict
from datetime import datetime, timezone

from spark_bench.commands.parsing import Namespace, Parser, count, positive, ratio
from spark_bench.errors import InputError

_SETTINGS = ('input_size', 'batch_size', 'mask_ratio', 'rounds', 'device', 'amp', 'channels_last', 'stock')


def add_options(parser: Parser) -> None:
    parser.add_argument(
        'arch',
        nargs='*',
        metavar='ARCH',
        default=['resnet50', 'convnext_small', 'convnext_base'],
        help='timm convnets (default: resnet50 convnext_small convnext_base)',
    )
    parser.add_argument(
        '--stock',
        action='store_true',
        help="measure mmpretrain's SparK too, where it has one (resnet50, convnext_small, convnextv2_tiny), and its "
        'MAE of a ViT-B',
    )
    parser.add_argument('--input-size', type=positive, default=224, metavar='PIXELS')
    parser.add_argument('--batch-size', type=positive, default=8, metavar='N')
    parser.add_argument('--mask-ratio', type=ratio, default=0.6, metavar='RATIO')
    parser.add_argument(
        '--rounds',
        type=positive,
        default=5,
        metavar='N',
        help='steps that each takes, in turn; medians are printed (default: 5)',
    )
    parser.add_argument(
        '--data-root', metavar='DIR', help='take these images, and measure their loader alone (default: noise)'
    )
    parser.add_argument(
        '--workers', type=count, metavar='N', help='processes that load them, at most (default: one a core)'
    )
    parser.add_argument('--threads', type=positive, metavar='N', help='CPU threads')
    parser.add_argument('--device', metavar='NAME', help='default: cuda where there is a GPU, else cpu')
    parser.add_argument('--amp', action='store_true', help='bf16 autocast')
    parser.add_argument(
        '--tf32', action='store_true', help='a GPU multiplies float32 matrices in TF32, as it convolves float32 maps'
    )
    parser.add_argument('--channels-last', action='store_true', help='images and weights in channels-last layout')
    parser.add_argument(
        '--compile', action='store_true', help='measure the packed engine through torch.compile too, as a whole'
    )
    parser.add_argument(
        '--keep-memory', action='store_true', help='tell the allocator to keep freed memory, as training on a CPU does'
    )
    parser.add_argument('--results', metavar='DIR', help='also write records here, a row each, of the task profile')
    parser.add_argument('--suite', default='profile', metavar='NAME', help='table of the records (default: profile)')
    parser.add_argument('--json', metavar='FILE', help='also write the figures here')


def _check_words(args):
    if args.workers is not None and args.data_root is None:
        raise InputError('--workers loads the images of --data-root: give both')
    twice = next((arch for arch in args.arch if args.arch.count(arch) > 1), None)
    if twice:
        raise InputError(f'{twice} is named twice, and a record has one figure: name it once')


def main(args: Namespace) -> int:
    """Measure each network, print the tables and write the JSON and the records."""
    # The profiler's own log (tracing marks, the search for a GPU) would stand in the middle of the table; it reads this
    # when torch is loaded.
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')
    from spark_bench.devices import choose_device
    from spark_bench.files import claim_output, write_atomically
    from spark_bench.profiling import loading, measuring, records, showing
    from spark_bench.records.environment import usable_cores
    from spark_bench.training.compiling import demand_compiler

    _check_words(args)
    if args.compile:
        demand_compiler()
    args.device, started = str(choose_device(args.device)), datetime.now(timezone.utc)
    if args.json:
        output = claim_output(args.json, rb'\{\s*"settings":\s*\{\s*"input_size":', '--json')
    if args.results:
        records.claim_records(args.results, args.suite, args.arch, args.compile, args.stock)
    how = _set_torch(args)
    settings = {name: getattr(args, name) for name in _SETTINGS}
    batches, rates, workers = None, {}, usable_cores() if args.workers is None else args.workers
    if args.data_root is not None:
        images = loading.Batches(args.data_root, args.input_size, args.batch_size)
        rates = {number: images.rate(number) for number in loading.worker_counts(workers)}
        batches = images.load(workers)
    figures = [
        figure
        for arch in args.arch
        for figure in measuring.measure(arch, compiled=args.compile, batches=batches, **settings)
    ]
    showing.show(figures, settings, rates)
    settings |= how
    if args.json:
        contents = {
            'settings': settings,
            'images_per_s_by_workers': rates,
            'figures': [asdict(figure) for figure in figures],
        }
        try:
            write_atomically(output, json.dumps(contents, indent=1).encode())
        except OSError as error:
            raise InputError(f'--json {output} cannot be written: {error.strerror}') from error
    if args.results:
        for path in records.write_records(args.results, args.suite, figures, settings, started, args.data_root):
            print(f'written: {path}')
    return 0


def _set_torch(args):
    """Have torch compute as asked; returns what a record tells of that."""
    import torch

    from spark_bench.training.memory import keep_freed_memory

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.keep_memory:
        keep_freed_memory()
    torch.backends.cudnn.benchmark = True  # as recipes of pretraining say; of no matter on a CPU
    torch.set_float32_matmul_precision('high' if args.tf32 else 'highest')
    told = {'keep_memory': args.keep_memory, 'threads': torch.get_num_threads(), 'torch': torch.__version__}
    return told | ({'tf32': True} if args.tf32 else {})
