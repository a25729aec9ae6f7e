"""Groups of options that several commands have."""

import sys
from collections.abc import Sequence

from spark_bench.commands.parsing import Flag, Namespace, Parser, count, positive, seed, setting
from spark_bench.errors import printable
from spark_bench.places import RESULTS


def add_run(
    parser: Parser,
    config: str,
    data: str,
    work_dir: str = 'work_dirs/<suite>/<task>/<arch>/<method>/<seed>',
    method: str = 'row of the table (default: what the weights say)',
) -> None:
    """Options of what runs a recipe.

    Args:
        config: that is run unless another is given.
        data: what the data set may be.
        work_dir: the default, for people.
        method: what that option says.
    """
    parser.add_argument('config', nargs='?', metavar='CONFIG', help=f'mmengine config (default: {config})')
    parser.set_defaults(default_config=config)
    parser.add_argument(
        '--data-root', metavar='DIR', help=f'{data} (default: what the config names, or the embedded data set)'
    )
    parser.add_argument('--arch', metavar='NAME', help='network of timm (default: the one of the config)')
    parser.add_argument('--seed', type=seed, default=0, metavar='N')
    parser.add_argument('--suite', default='custom', metavar='NAME', help='table of the record (default: custom)')
    parser.add_argument('--method', metavar='NAME', help=method)
    parser.add_argument('--threads', type=positive, metavar='N', help='CPU threads')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        type=setting,
        metavar='KEY=VALUE',
        help='change values of the config, such as train_cfg.max_epochs=2',
    )
    add_places(parser, work_dir)
    add_cache(parser)


def add_speed(parser: Parser) -> None:
    """What decides how fast a training goes, and in how many processes."""
    parser.add_argument(
        '--batch-size',
        type=positive,
        metavar='N',
        help='images a device computes at a time (default: what fits the global batch of the config)',
    )
    parser.add_argument(
        '--accumulate',
        type=positive,
        metavar='N',
        help='batches whose gradients are summed for an update (default: the fewest that fit)',
    )
    parser.add_argument('--amp', action=Flag, help='bfloat16 autocast')
    parser.add_argument('--channels-last', action=Flag, help='memory layout')
    parser.add_argument('--compile', action=Flag, help='the network through torch.compile; in detect, the backbone')
    parser.add_argument('--workers', type=count, metavar='N', help='processes that load images, a training process')
    parser.add_argument(
        '--checkpoint-interval',
        type=positive,
        metavar='N',
        help='updates between checkpoints in mid-epoch (default: what the config says)',
    )
    add_launcher(parser)


def add_launcher(parser: Parser) -> None:
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'torchrun', 'slurm'),
        default='none',
        type=lambda word: 'pytorch' if word == 'torchrun' else word,
        help='what started this process: torchrun (pytorch is another word for it) or srun',
    )


def add_metric(parser: Parser) -> None:
    parser.add_argument(
        '--backend',
        choices=('fast', 'pycocotools'),
        default='fast',
        help='of the metrics; figures are the same (default: fast)',
    )
    parser.add_argument(
        '--bootstrap',
        type=count,
        default=0,
        metavar='N',
        help='resamples of the images, for a 95 %% interval of AP (default: 0, none)',
    )


def add_weights(parser: Parser) -> None:
    parser.add_argument(
        '--weights',
        metavar='FILE',
        help='of the backbone: .safetensors or .pth; spark, supervised, mae or simmim for the '
        'published file; or scratch (default: what the config says)',
    )
    add_key_prefix(parser)
    parser.add_argument('--download', action='store_true', help='fetch a published file that is not there')


def add_key_prefix(parser: Parser) -> None:
    parser.add_argument(
        '--key-prefix',
        metavar='PREFIX',
        help='of a file with several networks: what the names of the one to take begin with, such as '
        'encoder_q. or teacher.backbone.',
    )


def add_suite(parser: Parser) -> None:
    """The suite whose records are shown, see :func:`find_suite`."""
    parser.add_argument(
        '--suite',
        default='demo',
        metavar='NAME',
        help='of the records, or the file that defines the suite and its tables (default: demo)',
    )
    add_places(parser, 'work_dirs')


def find_suite(args: Namespace) -> tuple[str, Sequence | None]:
    """Name of the records of ``--suite``, and the specs of its tables; tells where a file may define others."""
    from spark_bench.records.store import recorded_suites
    from spark_bench.suites import definition

    name, specs = definition.find_suite(args.suite, args.results)
    if specs is None and not args.suite.endswith('.py') and name != 'custom' and name in recorded_suites(args.results):
        print(
            f'spark-bench: note: the table of all records of {printable(name)}; where a file defines its tables, '
            'name that with --suite, as FILE.py',
            file=sys.stderr,
        )
    return name, specs


def add_places(parser: Parser, work_dir: str) -> None:
    parser.add_argument('--work-dir', metavar='DIR', help=f'checkpoints, logs, images (default: {work_dir})')
    parser.add_argument('--results', default=RESULTS, metavar='DIR', help='records and tables (default: results)')


def add_cache(parser: Parser) -> None:
    parser.add_argument(
        '--cache-dir',
        metavar='DIR',
        help='for the embedded data set and published weights (default: $SPARK_BENCH_CACHE, '
        'or else spark_bench in $XDG_CACHE_HOME or ~/.cache)',
    )
