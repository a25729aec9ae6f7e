"""the whole road on the embedded data set: ablation table and report"""

from spark_bench.commands.options import add_cache, add_places
from spark_bench.commands.parsing import Namespace, Parser, positive

# A ResNet and a ConvNeXt of timm that are small enough for a CPU.
SMALL_ARCHS = ('test_resnet', 'test_convnext')


def add_options(parser: Parser) -> None:
    parser.add_argument('--quick', action='store_true', help='a few steps of everything, in about a minute')
    parser.add_argument(
        '--arch',
        default='test_resnet',
        metavar='NAME',
        help='timm convnet: test_resnet (default), test_convnext, or a larger one',
    )
    parser.add_argument(
        '--jobs', type=positive, metavar='N', help='runs at a time (default: one a GPU, else one a CPU core)'
    )
    add_places(parser, 'work_dirs/<suite>')
    add_cache(parser)


def main(args: Namespace) -> int:
    """Run what is missing of a suite, then print the table and write the report; 0 only if no cell failed."""
    from spark_bench.suites import command, plan, runner
    from spark_bench.suites.definition import load_suite

    if args.arch not in SMALL_ARCHS:
        # Loads torch, which takes seconds: the two that are known to be right skip it.
        from spark_bench.models.backbones import pyramid_channels

        pyramid_channels(args.arch)
    suite = load_suite('demo_quick' if args.quick else 'demo', args.arch)
    places = plan.Places({}, args.work_dir or f'work_dirs/{suite.name}', args.results, args.cache_dir)
    command.claim_outputs(suite, places)
    return command.run(suite, plan.build_cells(suite, suite.cells, places), places, runner.start_server(), args.jobs)
