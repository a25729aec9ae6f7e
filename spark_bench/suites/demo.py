"""The demo suite: the ablation table at the scale of a laptop, on the embedded data set."""

import os
import sys
from pathlib import Path

from pretrain.ablations import ABLATIONS
from spark_bench.data import embedded
from spark_bench.errors import RunError
from spark_bench.places import default_work_dir, report_path, shipped
from spark_bench.records import report, table
from spark_bench.suites.runner import Cell, run_cells

METHODS = ('scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic')
# A ResNet and a ConvNeXt of timm that are small enough for a CPU.
SMALL_ARCHS = ('test_resnet', 'test_convnext')
SEED = 0
CONFIGS = {'pretrain': 'pretrain/configs/demo_pretrain.py', 'classification': 'pretrain/configs/demo_finetune.py',
           'detection': 'mmdet_configs/demo/mask-rcnn_demo.py'}
PARTS = {'pretrain': 'unlabelled', 'classification': 'classification', 'detection': 'detection'}
# Seconds on one core of 2023, for the estimate of the time left alone.
WEIGHTS = {'pretrain': 55.0, 'classification': 25.0, 'detection': 95.0}
QUICK = {
    'pretrain': {'train_cfg.max_epochs': 2},
    'classification': {'train_cfg.max_epochs': 2},
    'detection': {'train_cfg.max_epochs': 2},
}


def main(args):
    """Run what is missing, then print the table and write the report; exit status 0 only if no cell failed."""
    suite, size = ('demo-quick', 'quick') if args.quick else ('demo', 'full')
    if args.arch not in SMALL_ARCHS:
        # Loads torch, which takes seconds: the two that are known to be right skip it.
        from spark_bench.models.backbones import pyramid_channels
        pyramid_channels(args.arch)
    data = embedded.prepare(size, cache_dir=args.cache_dir)
    cells = build_cells(data, suite, args.arch, args.work_dir or f'work_dirs/{suite}', args.results,
                        QUICK if args.quick else {})
    failed = run_cells(cells, args.jobs or len(os.sched_getaffinity(0)))
    if len(failed) == len(cells):
        raise RunError(f'no run succeeded; the first: {failed[0].name}: {failed[0].outcome}')
    table.print_table(args.results, suite)
    path = report.write_report(args.results, suite, report_path(args.results, suite), Path.cwd())
    print(f'report: {path}')
    for cell in failed:
        print(f'spark-bench: error: {cell.name}: {cell.outcome}', file=sys.stderr)
    return 1 if failed else 0


def build_cells(data, suite, arch, work_dir, results, overrides):
    """The cells of the suite in the order to start them: pretraining, then what waits longest for a core.

    Args:
        data: :class:`~spark_bench.data.embedded.EmbeddedDataset`.
        suite: name for the records.
        arch: timm name.
        work_dir: folder of the suite.
        results: root of the records.
        overrides: config overrides by task.
    """
    def cell(task, method, needs=None, **extra):
        folder = default_work_dir(Path(work_dir).parent, Path(work_dir).name, task, arch, method, SEED)
        options = dict(
            config=str(shipped(CONFIGS[task])), suite=suite, method=method, arch=arch,
            data_root=str(getattr(data, PARTS[task])), work_dir=str(folder), results=str(results), seed=SEED,
            threads=1, overrides=overrides.get(task, {}), **extra)
        return Cell(f'{task} {method}', task, options, WEIGHTS[task], needs)

    pretraining = {method: cell('pretrain', method, ablation=method)
                   for method in METHODS if ABLATIONS[method].pretrains}
    downstream = []
    for task in ('detection', 'classification'):
        for method in METHODS:
            needs = pretraining.get(method)
            weights = needs and str(Path(needs.options['work_dir']) / 'encoder.safetensors')
            downstream.append(cell(task, method, needs, weights=weights))
    return [*pretraining.values(), *downstream]
