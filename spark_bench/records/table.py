"""Tables of records: what others need of the modules beside this one, and the tables of a suite on disk."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from spark_bench.errors import InputError, nearest
from spark_bench.files import claim_output
from spark_bench.places import RESULTS, shipped
from spark_bench.records.grid import plain_text, show
from spark_bench.records.schema import ORIGINS, Record
from spark_bench.records.store import load_all, recorded_suites, suite_folder, write_text_output
from spark_bench.records.table_build import METHODS, Failure, build_table, group_by_cell, order_methods
from spark_bench.records.table_html import to_html
from spark_bench.records.table_latex import to_latex
from spark_bench.records.table_parts import Cell, Column, Row, Table, TableSpec
from spark_bench.records.table_text import (
    delta_text,
    delta_verdict,
    to_csv,
    to_grid,
    to_markdown,
    value_text,
)

__all__ = [
    'COLUMNS',
    'METHODS',
    'Cell',
    'Column',
    'Failure',
    'Row',
    'Table',
    'TableSpec',
    'build_table',
    'claim_tables',
    'delta_text',
    'delta_verdict',
    'group_by_cell',
    'load_suite',
    'main',
    'order_methods',
    'print_table',
    'print_tables',
    'table_of_suite',
    'tables_of',
    'to_csv',
    'to_grid',
    'to_html',
    'to_latex',
    'to_markdown',
    'value_text',
]

_SHOWN = 8  # names of suites in a message
COLUMNS = (
    Column('classification', 'top1', 'top-1'),
    Column('linear', 'top1', 'linear top-1'),
    Column('knn', 'top1', 'k-NN top-1'),
    Column('detection', 'box_ap', 'box AP'),
    Column('detection', 'mask_ap', 'mask AP'),
)


def load_suite(results: str | Path, suite: str, curves: bool = True) -> list[Record]:
    """The records of `suite`, as `load_all` gives them.

    Where `results` is the default and has no folder of published ones, as beside an installed copy, those come from the
    package. A folder that somebody names is taken as it is.

    Raises InputError, naming the folder and what can be done, if there is none.
    """
    records = load_all(results, suite, curves)
    if Path(results) == Path(RESULTS) and not Path(results, 'published').exists():
        records += load_all(shipped('spark_bench'), suite, curves)
    if not records:
        raise InputError(
            f'no record of suite {suite!r} in {suite_folder(results, "measured", suite)}; {_remedy(results, suite)}'
        )
    return records


def _remedy(results: str | Path, suite: str) -> str:
    """What to do where a suite has no record: of what is there, for names are mistyped."""
    inside = next((parent for parent in (Path(results), *Path(results).parents) if parent.name in ORIGINS), None)
    if inside is not None:
        return f'the results folder is the one above {inside.name}: --results {inside.parent}'
    known = recorded_suites(results)
    stem = suite.replace('-', '_')
    if shipped(f'spark_bench/suites/shipped/{stem}.py').is_file():
        command = {'demo': 'demo', 'demo_quick': 'demo --quick'}.get(stem, f'run {stem}')
        return f'make some with `spark-bench {command}`, or name the right folder with --results'
    close = nearest(suite, known)
    if known:
        shown = ', '.join(known[:_SHOWN]) + f' and {len(known) - _SHOWN} more' * (len(known) > _SHOWN)
        return f'{close} '.lstrip() + f'name one that has any ({shown}), or the right folder with --results'
    return 'name the right folder with --results'


def table_of_suite(records: Sequence[Record]) -> Table:
    """The table of a suite that defines none: all its methods; of COLUMNS, those whose task has any record.

    A variant of a task, such as 'detection_2x', has columns of its own after those of the task.
    """
    found = []
    for kind in dict.fromkeys(column.task for column in COLUMNS):
        for task in sorted({record.task for record in records if record.kind == kind}):
            variant = task.removeprefix(kind).replace('_', ', ')
            found += [Column(task, c.metric, c.label + variant) for c in COLUMNS if c.task == kind]
    name = records[0].suite if records else ''
    # Probes have columns only where there are any.
    expected = tuple(column for column in COLUMNS if column.task not in ('linear', 'knn'))
    return build_table(records, TableSpec(name, '', tuple(found) or expected))


def tables_of(
    records: Sequence[Record], specs: Sequence[TableSpec] | None, failed: Sequence[Failure] = ()
) -> tuple[Table, ...]:
    """The tables of a suite: one for each of `specs`, or `table_of_suite` where it defines none."""
    if not specs:
        return (table_of_suite(records),)
    return tuple(build_table(records, spec, failed) for spec in specs)


def claim_tables(results: str | Path, names: Iterable[str]) -> list[Path]:
    """The files of the tables of these names without their ends, `<results>/tables/<name>`.

    Raises InputError where something else stands in the place of one, see `claim_output`.
    """
    places = [Path(results, 'tables', name) for name in names]
    for place in places:
        for suffix in ('.md', '.csv'):
            claim_output(f'{place}{suffix}', OWN, 'the table')
    return places


def print_table(results: str | Path, suite: str) -> Table:
    """`print_tables` of a suite that defines no tables of its own; returns its one table."""
    return print_tables(results, suite)[0]


def print_tables(
    results: str | Path, suite: str, specs: Sequence[TableSpec] | None = None, failed: Sequence[Failure] = ()
) -> tuple[Table, ...]:
    """Print the tables of `suite`, write each to `<results>/tables/<name>.md` and `.csv`; return them.

    Raises InputError if the suite has no record, if a record is unsound, or if the folder cannot be written.
    """
    records = load_suite(results, suite, curves=False)
    tables = tables_of(records, specs, failed)
    places = claim_tables(results, [table.name for table in tables])
    for table, place in zip(tables, places, strict=True):
        write_text_output(f'{place}.md', to_markdown(table))
        write_text_output(f'{place}.csv', to_csv(table))
    for table, place in zip(tables, places, strict=True):
        show(to_grid(table, title=table.title or suite))
        print(f'written: {place}.md and .csv')
    _tell_left_out(records, tables)
    return tables


def main(args, specs: Sequence[TableSpec] | None) -> int:
    """Answer `spark-bench table` for the suite that defines `specs`; exit status 0.

    Without --format and --output it prints and writes as `print_tables` does; else the tables go, in one format,
    to the file or to standard output, and to nowhere else.

    Raises:
        InputError: as `print_tables` does, or if the format cannot be told from the name of the output.
    """
    if args.format is None and args.output is None:
        print_tables(args.results, args.suite, specs)
        return 0
    name = args.format or SUFFIXES.get(Path(args.output).suffix.lower())
    if name is None:
        raise InputError(f'--output {args.output}: no format ends so; name one with --format: {", ".join(FORMATS)}')
    if args.output is not None:
        claim_output(args.output, OWN)
    records = load_suite(args.results, args.suite, curves=False)
    tables = tables_of(records, specs)
    if args.output is not None:
        print(f'written: {write_text_output(args.output, FORMATS[name](tables))}')
    elif name == 'terminal':
        show(*map(to_grid, tables))
    else:
        sys.stdout.write(FORMATS[name](tables))
    _tell_left_out(records, tables)
    return 0


def _tell_left_out(records: Sequence[Record], tables: Sequence[Table]) -> None:
    """Say on standard error which measured figures the tables have no place for."""
    places = {
        (row.origin, row.arch, row.method, column.task)
        for table in tables
        for row in table.rows
        for column in table.columns
    }
    cells = {(r.origin, r.arch, r.method, r.task) for r in records if r.kind != 'pretrain'} - places
    if cells:
        named = ', '.join('/'.join((task, arch, method)) for _, arch, method, task in sorted(cells)[:3])
        more = f' and {len(cells) - 3} more' if len(cells) > 3 else ''
        print(f'spark-bench: note: measured or published, but in no table here: {named}{more}', file=sys.stderr)


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    'terminal': lambda tables: plain_text(*map(to_grid, tables)),
    'markdown': lambda tables: '\n'.join(map(to_markdown, tables)),
    'csv': lambda tables: to_csv(*tables),
    'latex': lambda tables: '\n'.join(map(to_latex, tables)),
    'html': lambda tables: '\n'.join(map(to_html, tables)),
}
# How each of them begins: so is an earlier table told from what somebody else wrote.
OWN = (
    rb'([^\n]*\n)?\n  backbone +method |(\*\*[^\n]*\*\*\n\n)?\| backbone \| method \||arch,method,origin,'
    rb'|% Needs \\usepackage\{booktabs\}|<table class="results" id="table'
)
SUFFIXES = {'.txt': 'terminal', '.md': 'markdown', '.csv': 'csv', '.tex': 'latex', '.html': 'html'}
