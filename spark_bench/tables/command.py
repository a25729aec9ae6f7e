"""``spark-bench table``: the tables of a suite on a terminal, as files in its results folder, or in one format."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from spark_bench.errors import first_of
from spark_bench.files import claim_output, write_output
from spark_bench.records.schema import Record
from spark_bench.tables.build import Failure
from spark_bench.tables.csv import to_csv
from spark_bench.tables.grid import plain_text, show
from spark_bench.tables.html import to_html
from spark_bench.tables.latex import to_latex
from spark_bench.tables.markdown import to_markdown
from spark_bench.tables.output import choose_format, give
from spark_bench.tables.parts import Table, TableSpec
from spark_bench.tables.suite import load_suite, tables_of
from spark_bench.tables.text import to_grid

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


def main(args: argparse.Namespace, specs: Sequence[TableSpec] | None) -> int:
    """Answer ``spark-bench table`` for the suite that defines ``specs``; exit status 0.

    Without --format and --output it prints and writes as ``print_tables`` does; else the tables go, in one format, to
    the file or to standard output, and to nowhere else.

    Raises:
        InputError: as ``print_tables`` does, or if the format cannot be told from the name of the output.
    """
    if args.format is None and args.output is None:
        print_tables(args.results, args.suite, specs)
        return 0
    name = choose_format(args.format, args.output, FORMATS, OWN)
    records = load_suite(args.results, args.suite, curves=False)
    tables = tables_of(records, specs)
    give(FORMATS[name](tables), list(map(to_grid, tables)), name, args.output)
    _tell_left_out(records, tables)
    return 0


def print_tables(
    results: str | Path, suite: str, specs: Sequence[TableSpec] | None = None, failed: Sequence[Failure] = ()
) -> tuple[Table, ...]:
    """Print the tables of ``suite``, write each to ``<results>/tables/<name>.md`` and ``.csv``; return them.

    Args:
        results: root of the records.
        specs: its tables; one of all its records if there are none.
        failed: runs that failed, as ``build_table`` takes them.

    Raises:
        InputError: if the suite has no record, if a record is unsound, or if the folder cannot be written.
    """
    records = load_suite(results, suite, curves=False)
    tables = tables_of(records, specs, failed)
    places = claim_tables(results, [table.name for table in tables])
    for table, place in zip(tables, places, strict=True):
        write_output(f'{place}.md', to_markdown(table))
        write_output(f'{place}.csv', to_csv(table))
    for table, place in zip(tables, places, strict=True):
        show(to_grid(table, title=table.title or suite))
        print(f'written: {place}.md and .csv')
    _tell_left_out(records, tables)
    return tables


def claim_tables(results: str | Path, names: Iterable[str]) -> list[Path]:
    """The files of the tables of these names without their ends, ``<results>/tables/<name>``.

    Raises:
        InputError: where something else stands in the place of one, see ``claim_output``.
    """
    places = [Path(results, 'tables', name) for name in names]
    for place in places:
        for suffix in ('.md', '.csv'):
            claim_output(f'{place}{suffix}', OWN, 'the table')
    return places


def _tell_left_out(records: Sequence[Record], tables: Sequence[Table]) -> None:
    """Say on standard error which measured figures the tables have no place for."""
    places = {
        (row.origin, column.task, row.arch, row.method)
        for table in tables
        for row in table.rows
        for column in table.columns
    }
    left_out = sorted({record.cell for record in records if record.kind != 'pretrain'} - places)
    if left_out:
        named = first_of(['/'.join(cell) for _, *cell in left_out])
        print(f'spark-bench: note: measured or published, but in no table here: {named}', file=sys.stderr)
