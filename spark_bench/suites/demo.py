"""``spark-bench demo``: the suites ``demo`` and ``demo-quick`` under one word."""

from spark_bench.suites.command import claim_outputs, run
from spark_bench.suites.definition import load_suite
from spark_bench.suites.plan import Places, build_cells

# A ResNet and a ConvNeXt of timm that are small enough for a CPU.
SMALL_ARCHS = ('test_resnet', 'test_convnext')


def main(args):
    """Run what is missing, then print the table and write the report; exit status 0 only if no cell failed."""
    if args.arch not in SMALL_ARCHS:
        # Loads torch, which takes seconds: the two that are known to be right skip it.
        from spark_bench.models.backbones import pyramid_channels
        pyramid_channels(args.arch)
    suite = load_suite('demo_quick' if args.quick else 'demo', args.arch)
    places = Places({}, args.work_dir or f'work_dirs/{suite.name}', args.results, args.cache_dir)
    claim_outputs(suite, places)
    return run(suite, build_cells(suite, suite.cells, places), places, args.jobs)
