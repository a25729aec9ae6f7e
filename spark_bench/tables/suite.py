"""The records of a suite, and its tables."""

from collections.abc import Sequence
from pathlib import Path

from spark_bench.errors import InputError, first_of, nearest
from spark_bench.places import RESULTS, shipped
from spark_bench.records.json_schema import ORIGINS
from spark_bench.records.schema import Record
from spark_bench.records.store import load_all, recorded_suites, suite_folder
from spark_bench.tables.build import Failure, build_table
from spark_bench.tables.parts import Column, Table, TableSpec

_SHOWN = 8  # names of suites in a message
COLUMNS = (
    Column('classification', 'top1', 'top-1'),
    Column('linear', 'top1', 'linear top-1'),
    Column('knn', 'top1', 'k-NN top-1'),
    Column('detection', 'box_ap', 'box AP'),
    Column('detection', 'mask_ap', 'mask AP'),
    Column('profile', 'forward_s', 'forward, s'),
    Column('profile', 'backward_s', 'backward, s'),
    Column('profile', 'optimizer_s', 'optimizer, s'),
    Column('profile', 'step_s', 'step, s'),
    Column('profile', 'speed_up', 'speed-up'),
    Column('profile', 'peak_gb', 'memory, GB'),
    Column('profile', 'encoder_peak_gb', 'encoder, GB'),
)


def load_suite(results: str | Path, suite: str, curves: bool = True) -> list[Record]:
    """The records of ``suite``, as ``load_all`` gives them.

    Where ``results`` is the default and has no folder of published ones, as beside an installed copy, those come from
    the package. A folder that somebody names is taken as it is.

    Raises:
        InputError: naming the folder and what can be done, if there is none; and as ``load_all`` does.
    """
    records = load_all(results, suite, curves)
    if Path(results) == Path(RESULTS) and not Path(results, 'published').exists():
        records += load_all(shipped('spark_bench'), suite, curves)
    if not records:
        folder = suite_folder(results, 'measured', suite)
        raise InputError(f'no record of suite {suite!r} in {folder}; {_remedy(results, suite)}')
    return records


def _remedy(results: str | Path, suite: str) -> str:
    """What to do where a suite has no record: of what is there, for names are mistyped."""
    inside = next((parent for parent in (Path(results), *Path(results).parents) if parent.name in ORIGINS), None)
    if inside is not None:
        return f'the results folder is the one above {inside.name}: --results {inside.parent}'
    stem = suite.replace('-', '_')
    if shipped(f'spark_bench/suites/shipped/{stem}.py').is_file():
        command = {'demo': 'demo', 'demo_quick': 'demo --quick'}.get(stem, f'run {stem}')
        return f'make some with `spark-bench {command}`, or name the right folder with --results'
    known = recorded_suites(results)
    if known:
        close = nearest(suite, known)
        return f'{close} name one that has any ({first_of(known, _SHOWN)}), or the right folder with --results'.lstrip()
    return 'name the right folder with --results'


def table_of_suite(records: Sequence[Record], failed: Sequence[Failure] = ()) -> Table:
    """The table of a suite that defines none: all its methods; of COLUMNS, those whose task has any record.

    A variant of a task, such as 'detection_2x', has columns of its own after those of the task. ``failed`` are the runs
    that failed, as for ``build_table``.
    """
    found = []
    for kind in dict.fromkeys(column.task for column in COLUMNS):
        for task in sorted({record.task for record in records if record.kind == kind}):
            variant = task.removeprefix(kind).replace('_', ', ')
            found += [Column(task, c.metric, c.label + variant) for c in COLUMNS if c.task == kind]
    name = records[0].suite if records else ''
    # Probes and profiles have columns only where there are any.
    expected = tuple(column for column in COLUMNS if column.task not in ('linear', 'knn', 'profile'))
    # What a profile measures has no row scratch: the plain definition takes its place.
    only_profiles = found and all(column.task.startswith('profile') for column in found)
    baseline = 'reference' if only_profiles else 'scratch'
    return build_table(records, TableSpec(name, '', tuple(found) or expected, baseline=baseline), failed)


def tables_of(
    records: Sequence[Record], specs: Sequence[TableSpec] | None, failed: Sequence[Failure] = ()
) -> tuple[Table, ...]:
    """The tables of a suite: one for each of ``specs``, or ``table_of_suite`` where it defines none."""
    return tuple(build_table(records, spec, failed) for spec in specs or ()) or (table_of_suite(records, failed),)
