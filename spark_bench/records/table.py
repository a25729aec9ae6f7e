"""Tables of records: what others need of the modules beside this one, and the tables of a suite on disk."""

from collections.abc import Sequence
from pathlib import Path

from spark_bench.errors import InputError
from spark_bench.records.schema import Record
from spark_bench.records.store import load_all, suite_folder, write_text_atomically
from spark_bench.records.table_build import METHODS, build_table, order_methods
from spark_bench.records.table_html import to_html
from spark_bench.records.table_parts import Cell, Column, Row, Table, TableSpec
from spark_bench.records.table_text import delta_text, delta_verdict, to_csv, to_markdown, to_rich, value_text

__all__ = [
    'COLUMNS',
    'METHODS',
    'Cell',
    'Column',
    'Row',
    'Table',
    'TableSpec',
    'build_table',
    'delta_text',
    'delta_verdict',
    'load_suite',
    'order_methods',
    'print_table',
    'table_of_suite',
    'to_csv',
    'to_html',
    'to_markdown',
    'to_rich',
    'value_text',
]

COLUMNS = (
    Column('classification', 'top1', 'top-1'),
    Column('detection', 'box_ap', 'box AP'),
    Column('detection', 'mask_ap', 'mask AP'),
)


def load_suite(results: str | Path, suite: str) -> list[Record]:
    """The records of `suite`. Raises InputError, naming folder and command, if there is none."""
    records = load_all(results, suite)
    if not records:
        command = 'spark-bench demo' if suite == 'demo' else f'spark-bench run {suite}'
        raise InputError(
            f'no record of suite {suite!r} in {suite_folder(results, "measured", suite)}; '
            f'make some with `{command}`, or name the right folder with --results'
        )
    return records


def table_of_suite(records: Sequence[Record]) -> Table:
    """The table of a suite that defines none: all its methods; of COLUMNS, those whose task has any record."""
    tasks = {record.task for record in records}
    columns = tuple(column for column in COLUMNS if column.task in tasks) or COLUMNS
    return build_table(records, TableSpec(records[0].suite if records else '', '', columns))


def print_table(results: str | Path, suite: str) -> Table:
    """Print the table of `suite` and write it to `<results>/tables/<suite>.md` and `.csv`; return it.

    Raises InputError if the suite has no record, if a record is unsound, or if the folder cannot be written.
    """
    import rich.console

    table = table_of_suite(load_suite(results, suite))
    folder = Path(results, 'tables')
    write_text_atomically(folder / f'{suite}.md', to_markdown(table))
    write_text_atomically(folder / f'{suite}.csv', to_csv(table))
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no width to fit into
    console.print(to_rich(table, title=suite))
    console.print(f'written: {folder / suite}.md and .csv', markup=False, highlight=False, soft_wrap=True)
    return table
