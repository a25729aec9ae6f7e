"""``spark-bench run SUITE``: plan, run what is missing, tell what failed, print the tables."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

from spark_bench.errors import InputError
from spark_bench.places import report_path
from spark_bench.report.page import claim_report, write_report
from spark_bench.suites import cluster
from spark_bench.suites.costs import print_plan
from spark_bench.suites.definition import CellSpec, Suite, committed_tables, load_suite
from spark_bench.suites.gpus import fitting_jobs
from spark_bench.suites.plan import (
    Places,
    build_cells,
    demand_data,
    fitting_processes,
    parse_data,
    select,
    use_published,
)
from spark_bench.suites.rehearsal import check_cells, check_records
from spark_bench.suites.runner import Job, SuiteRun, in_server, run_cells, start_server
from spark_bench.suites.status import RECORDED, finished, has_weights, show_states, state_of
from spark_bench.tables.command import claim_tables, print_tables
from spark_bench.tables.grid import show
from spark_bench.tables.text import to_grid

# Options of a cluster, and what they are where they are not given.
_CLUSTER = {'hours': 24, 'gpus_per_node': 8, 'cpus_per_gpu': 8}


def main(args: Namespace) -> int:
    """Body of the command; exit status 0 only if every chosen cell has its record."""
    check_cluster_options(args)
    suite = load_suite(args.suite, args.arch)
    places = Places(
        parse_data(suite, args.data_root), args.work_dir or f'work_dirs/{suite.name}', args.results, args.cache_dir
    )
    specs = use_published(suite.cells) if args.published else list(suite.cells)
    done = finished(specs, suite, places)
    chosen = select(suite, specs, args.only, args.limit, lambda spec: spec.name in done)
    if args.status:
        show_states(suite, chosen, places)
        return 0
    if args.dry_run or args.cluster:
        check_cells(suite, chosen)
    else:
        server = start_server()
        in_server(server, check_cells, suite, chosen)
    if args.dry_run:
        print_plan(suite, chosen, places)
        return 0
    if args.cluster == 'slurm':
        return submit(suite, chosen, places, args)
    claim_outputs(suite, places)
    demand_data(places)
    # What was made of weights that are gone is not seen again by its run, nor is its pretraining run for that; where
    # the pretraining has no record, it is run, and then its transfers are looked at by theirs.
    done = finished(chosen, suite, places)
    spare = [
        spec
        for spec in chosen
        if {spec.name, (spec.needs or spec).name} <= done and not has_weights(spec.needs or spec, places)
    ]
    check_records(suite, spare, places.results)
    cells = build_cells(suite, [spec for spec in chosen if spec not in spare], places, args.download)
    if args.cluster == 'local':
        return rehearse(suite, cells, places, args)
    return run(suite, cells, places, server, args.jobs, args.gpus or 1)


def check_cluster_options(args: Namespace) -> None:
    """Refuse what would be passed over; fill in what is not given.

    Raises:
        InputError: naming the option.
    """
    ours = [name for name in ('partition', 'slurm', *_CLUSTER) if (name, args.cluster) != ('hours', 'local')]
    given = next((f'--{name.replace("_", "-")}' for name in ours if getattr(args, name)), None)
    if given and args.cluster != 'slurm':
        raise InputError(f'{given} is for a cluster: add --cluster slurm, or leave it away')
    for name, value in _CLUSTER.items():
        setattr(args, name, getattr(args, name) or value)
    if args.cluster == 'local' and (args.gpus or 1) > 1:
        raise InputError(f'--gpus {args.gpus}: --cluster local trains each cell in one process; leave one of them away')


def claim_outputs(suite: Suite, places: Places) -> None:
    """See, before anything runs, that tables and report can be written.

    Raises:
        InputError: naming the file that somebody else wrote in the place of one.
    """
    claim_tables(places.results, [spec.name for spec in suite.tables] or [suite.name])
    claim_report(report_path(places.results, suite.name))


def is_recorded(spec: CellSpec, suite: Suite, places: Places) -> bool:
    """Whether a cell has its record; of the same configuration or not."""
    return state_of(spec, suite, places).word == RECORDED


def run(
    suite: Suite,
    cells: Sequence[SuiteRun],
    places: Places,
    server: ForkServerContext | SpawnContext,
    jobs: int | None = None,
    gpus: int = 1,
) -> int:
    """Run cells on this machine; then, unless all failed, print tables and write the report; last, list the failures.

    Args:
        suite, cells, places: what to run.
        server: of :func:`~spark_bench.suites.runner.start_server`.
        jobs: cells at a time; None for one a GPU, and without GPUs for one, or one a CPU core where each takes one
            thread.
        gpus: processes that train together in each, fewer where they do not divide its batch.

    Returns:
        exit status: 1 where a cell failed.
    """
    for cell in cells:
        cell.processes = fitting_processes([cell], gpus)
    default = len(os.sched_getaffinity(0)) if all(cell.options.get('threads') == 1 for cell in cells) else 1
    jobs = fitting_jobs(jobs, default, gpus)
    return conclude(suite, places, cells, run_cells(cells, jobs, partial(Job, server, gpus)))


def rehearse(suite: Suite, cells: Sequence[SuiteRun], places: Places, args: Namespace) -> int:
    """:func:`run` with the jobs of a cluster, which submitit starts on this machine."""
    start = partial(cluster.LocalJob, Path(places.work_dir) / 'jobs', args.hours)
    return conclude(suite, places, cells, run_cells(cells, fitting_jobs(args.jobs, 1, 1), start))


def submit(suite: Suite, specs: Sequence[CellSpec], places: Places, args: Namespace) -> int:
    """Submit what has no record to Slurm; exit status.

    Raises:
        InputError: for a record of another configuration, which would pass for the suite's.
    """
    done = finished(specs, suite, places)
    missing = [spec for spec in specs if spec.name not in done]
    check_records(suite, [spec for spec in specs if is_recorded(spec, suite, places)], places.results)
    if len(missing) < len(specs):
        print(f'{len(specs) - len(missing)} of {len(specs)} cells are recorded and not submitted')
    tuned = [spec for spec in missing if any(not is_recorded(trial, suite, places) for trial in spec.trials)]
    if tuned:
        print(
            f'{len(tuned)} cells take values from others that have no record yet, as {tuned[0].name} from '
            f'{tuned[0].trials[0].name}: give the same command again when those are done'
        )
    cells = build_cells(suite, [spec for spec in missing if spec not in tuned], places, args.download)
    for cell in cells:
        if cell.prepare:
            cell.prepare()
    return cluster.submit(suite, cells, Path(places.work_dir) / 'jobs', args) if cells else 0


def conclude(suite: Suite, places: Places, cells: Sequence[SuiteRun], failed: Sequence[SuiteRun]) -> int:
    """After a run of ``cells``: tables and report, unless all failed, then those that ``failed``; exit status."""
    if not cells or len(failed) < len(cells):
        failures = [
            (*(cell.options[key] for key in ('task', 'arch', 'method', 'seed')), cell.outcome) for cell in failed
        ]
        print_tables(places.results, suite.name, suite.tables or None, failures)
        beside = [t.without_empty_rows() for t in committed_tables(suite.beside)[:1]] if suite.beside else []
        for table in beside:
            show(to_grid(table, title=f'Measured, not by this run: {table.title}'))
        output = report_path(places.results, suite.name)
        path = write_report(places.results, suite.name, output, Path.cwd(), suite.tables, failures, beside)
        print(f'report: {path}')
    for cell in failed:
        print(f'spark-bench: error: {cell.name}: {cell.outcome}', file=sys.stderr)
    return 1 if failed else 0
