"""run what a table needs: the missing cells of a suite, then the table"""

from spark_bench.commands.options import add_cache, add_places
from spark_bench.commands.parsing import Namespace, Parser, positive, setting


def add_options(parser: Parser) -> None:
    parser.add_argument(
        'suite',
        metavar='SUITE',
        help='demo, demo_quick, mini, ablation, scaling, resnet50, transformers, or the path of a suite of your own',
    )
    parser.add_argument(
        '--data-root',
        nargs='+',
        default=[],
        metavar='NAME=DIR',
        help='places of the data sets that the suite names, such as imagenet=/data/imagenet',
    )
    parser.add_argument('--arch', metavar='NAME', help="in place of the suite's architectures")
    parser.add_argument(
        '--only',
        nargs='+',
        default=[],
        metavar='PATTERN',
        help='cells by name, such as detection/* or */spark/*; what they start from comes along',
    )
    parser.add_argument('--limit', type=positive, metavar='N', help='run at most N of the missing cells')
    parser.add_argument(
        '--jobs',
        type=positive,
        metavar='N',
        help='cells at a time (default: one a GPU, else one; on Slurm: of an array)',
    )
    parser.add_argument(
        '--gpus',
        type=positive,
        metavar='N',
        help='processes that train together in each cell, one a GPU (default: 1 here, 8 on a cluster; '
        'fewer where they do not divide the batch of a recipe)',
    )
    parser.add_argument(
        '--published',
        action='store_true',
        help='start from published pretrained weights where there are any, instead of pretraining',
    )
    parser.add_argument('--download', action='store_true', help='fetch published files that are not there')
    parser.add_argument('--dry-run', action='store_true', help='print the plan with estimated GPU-hours and disk')
    parser.add_argument('--status', action='store_true', help='print where each cell stands; on a terminal, live')
    _add_cluster(parser)
    add_places(parser, 'work_dirs/<suite>')
    add_cache(parser)


def _add_cluster(parser):
    cluster = parser.add_argument_group('on a cluster (through submitit)')
    cluster.add_argument(
        '--cluster',
        choices=('slurm', 'local'),
        help='submit the cells to Slurm; local runs the same jobs on this machine, as a rehearsal',
    )
    cluster.add_argument('--gpus-per-node', type=positive, metavar='N', help='default: 8')
    cluster.add_argument('--cpus-per-gpu', type=positive, metavar='N', help='default: 8')
    cluster.add_argument('--partition', metavar='NAME')
    cluster.add_argument(
        '--hours',
        type=positive,
        metavar='N',
        help='of a job; one that is stopped or preempted goes on in the next (default: 24)',
    )
    cluster.add_argument(
        '--slurm',
        nargs='+',
        default=[],
        type=setting,
        metavar='KEY=VALUE',
        help='further options of sbatch, such as account=vision',
    )


def main(args: Namespace) -> int:
    from spark_bench.suites import command

    return command.main(args)
