"""Tables as comma-separated values."""

import csv
import io

from spark_bench.tables.parts import Cell, Column, Row, Table
from spark_bench.tables.text import DAGGER


def to_csv(*tables: Table) -> str:
    """One line a cell with every digit; empty fields where there is no number, or no answer.

    ``verified`` is the cell's; ``mark`` and ``delta_mark`` are the dagger of a figure that was not read in its source,
    and of a difference that is therefore no claim. A source that a spreadsheet would take for a formula has an
    apostrophe before it.
    """
    buffer = io.StringIO()
    fields = (
        'arch',
        'method',
        'origin',
        'verified',
        'task',
        'metric',
        'n',
        'seeds',
        'value',
        'std',
        'delta',
        'table',
        'status',
        'mark',
        'delta_mark',
        'best',
        'delta_beyond_noise',
        'source',
        'why',
    )
    writer = csv.DictWriter(buffer, fields, lineterminator='\n')
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            for cell, column in zip(row.cells, table.columns, strict=True):
                writer.writerow(_line(table, row, cell, column))
    return buffer.getvalue()


def _line(table: Table, row: Row, cell: Cell, column: Column) -> dict[str, str | int | float | None]:
    return {
        'arch': row.arch,
        'method': row.method,
        'origin': row.origin,
        'verified': '' if cell.value is None else _answer(cell.verified),
        'task': column.task,
        'metric': column.metric,
        'n': cell.n,
        'seeds': cell.seeds,
        'value': cell.value,
        'std': cell.std,
        'delta': cell.delta,
        'table': table.name,
        'status': cell.status,
        'mark': '' if cell.verified else DAGGER,
        'delta_mark': '' if cell.delta is None or cell.delta_verified else DAGGER,
        'best': _answer(cell.best),
        'delta_beyond_noise': _answer(cell.delta_beyond_noise),
        'source': _harmless('; '.join(cell.sources)),
        'why': '; '.join(f'seed {seed}: {why}' for seed, why in cell.failures) or cell.mixed,
    }


def _answer(value: bool | None) -> str:
    return '' if value is None else str(value).lower()


def _harmless(text: str) -> str:
    # A spreadsheet would take such text for a formula, and may run it.
    return f"'{text}" if text.startswith(('=', '+', '-', '@')) else text
