"""A table as text: Markdown, CSV, and in words for a terminal."""

import csv
import io
import re

from spark_bench.records.grid import Grid
from spark_bench.records.table_parts import Cell, Column, Row, Table

__all__ = [
    'delta_text',
    'delta_verdict',
    'escape_markdown',
    'source_marks',
    'to_csv',
    'to_grid',
    'to_markdown',
    'value_text',
]

ABSENT = '–'
LONGEST = 1e6  # from here on a number in print has an exponent
DAGGER = '†'  # on every figure that was not read in its source


def value_text(cell: Cell, column: Column) -> str:
    """A cell in print, such as '41.2', '41.2 ± 0.3 (n=3)' or '83.2†'; a dash or 'failed' where there is no value."""
    if cell.value is None:
        word = 'failed' if cell.failures else ABSENT
        return word if cell.n == 0 else f'{word} ({cell.n} of {cell.seeds} seeds)'
    text = _number(cell.value, column.digits)
    if cell.std is not None:
        text += f' ± {_number(cell.std, column.digits)} (n={cell.n})'
    return text if cell.verified else text + DAGGER


def _number(value: float, digits: int, sign: str = '') -> str:
    # A loss that ran away would be a hundred digits wide.
    return f'{value:{sign}.{digits}f}' if abs(value) < LONGEST else f'{value:{sign}.3g}'


def delta_text(cell: Cell, column: Column) -> str:
    """The difference from the baseline with its sign, and a dagger if it is no claim; empty where there is none."""
    if cell.delta is None:
        return ''
    rounded = round(cell.delta, column.digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    text = _number(rounded, column.digits, '+').replace('-', '−')
    return text if cell.delta_verified else text + DAGGER


def delta_verdict(cell: Cell, column: Column) -> str:
    """'better' or 'worse' than the baseline as printed; empty where there is no difference to see or to claim.

    A difference within the noise is none; where the noise is unknown, the table says so.
    """
    rounded = round(cell.delta or 0.0, column.digits)
    if not rounded or not cell.delta_verified or cell.delta_beyond_noise is False:
        return ''
    return 'better' if (rounded > 0) == column.is_percent else 'worse'


def source_marks(cell: Cell, table: Table) -> tuple[int, ...]:
    """The numbers, from 1, that the sources of a cell have in `table.sources`."""
    return tuple(table.sources.index(source) + 1 for source in cell.sources)


def to_markdown(table: Table) -> str:
    """A Markdown table under its title, the best figures bold; below it the note, failures and sources."""
    headings = ['backbone', 'method']
    for column in table.columns:
        headings += [escape_markdown(column.heading), 'Δ']
    lines = [headings, ['---', '---', *['---:'] * (2 * len(table.columns))]]
    numbers = {source: number for number, source in enumerate(table.sources, 1)}
    for row in table.rows:
        line = [escape_markdown(row.arch), escape_markdown(row.label)]
        for cell, column in zip(row.cells, table.columns, strict=True):
            text = value_text(cell, column)
            marks = ''.join(f' \\[{numbers[source]}\\]' for source in cell.sources)
            line += [(f'**{text}**' if cell.best else text) + marks, delta_text(cell, column)]
        lines.append(line)
    parts = [f'**{escape_markdown(table.title)}**\n'] if table.title else []
    parts += ['| ' + ' | '.join(line) + ' |' for line in lines]
    parts += ['', table.note(), ''] if table.note() else ['']
    if table.failures:
        parts += ['Failed:', '', *(f'- {escape_markdown(line)}' for line in table.failures), '']
    if numbers:
        parts += ['Sources:', '', *(f'{number}. {escape_markdown(source)}' for source, number in numbers.items()), '']
    return '\n'.join(parts)


def escape_markdown(text: str) -> str:
    """`text` without what Markdown would read as markup or as the end of a cell."""
    text = re.sub(r'([\\|*`<>\[\]#&$~])', r'\\\1', ' '.join(text.split()))
    # Between letters an underscore is plain text, as in convnext_small.
    return re.sub(r'(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])', r'\_', text)


CSV_FIELDS = (
    'arch', 'method', 'origin', 'verified', 'task', 'metric', 'n', 'seeds', 'value', 'std', 'delta',
    'table', 'status', 'mark', 'delta_mark', 'best', 'delta_beyond_noise', 'source', 'why',
)  # fmt: skip


def to_csv(*tables: Table) -> str:
    """One line a cell with every digit; empty fields where there is no number, or no answer.

    `verified` is the cell's; `mark` and `delta_mark` are the dagger of a figure that was not read in its source,
    and of a difference that is therefore no claim. A source that a spreadsheet would take for a formula has an
    apostrophe before it.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    writer.writerow(CSV_FIELDS)
    for table in tables:
        for row in table.rows:
            for cell, column in zip(row.cells, table.columns, strict=True):
                writer.writerow(_csv_line(table, row, cell, column))
    return buffer.getvalue()


def _csv_line(table: Table, row: Row, cell: Cell, column: Column) -> list:
    def answer(value: bool | None) -> str:
        return '' if value is None else str(value).lower()

    numbers = ['' if x is None else repr(x) for x in (cell.value, cell.std, cell.delta)]
    marks = [
        '' if cell.verified else DAGGER,
        '' if cell.delta is None or cell.delta_verified else DAGGER,
    ]
    why = '; '.join(f'seed {seed}: {why}' for seed, why in cell.failures)
    verified = None if cell.value is None else cell.verified
    return [
        row.arch, row.method, row.origin, answer(verified), column.task, column.metric, cell.n, cell.seeds, *numbers,
        table.name, cell.status, *marks, answer(cell.best), answer(cell.delta_beyond_noise),
        _harmless('; '.join(cell.sources)), why,
    ]  # fmt: skip


def _harmless(text: str) -> str:
    # A spreadsheet would take such text for a formula, and may run it.
    return f"'{text}" if text.startswith(('=', '+', '-', '@')) else text


def to_grid(table: Table, title: str | None = None) -> Grid:
    """The table in words, a gap between backbones; best figures are bold, differences green or red."""
    styles = {'better': 'green', 'worse': 'red', '': ''}
    headings, right = ['backbone', 'method'], [False, False]
    for column in table.columns:
        headings += [column.heading, 'Δ']
        right += [True, True]
    rows, breaks = [], set()
    for i, row in enumerate(table.rows):
        first = i == 0 or table.rows[i - 1].arch != row.arch
        if first and i:
            breaks.add(i)
        line = [((row.arch if first else '', ''),), ((row.label, ''),)]
        for cell, column in zip(row.cells, table.columns, strict=True):
            marks = ''.join(f' [{number}]' for number in source_marks(cell, table))
            line += [
                ((value_text(cell, column), 'bold' if cell.best else ''), (marks, 'dim')),
                ((delta_text(cell, column), styles[delta_verdict(cell, column)]),),
            ]
        rows.append(line)
    sources = (f'[{number}] {source}' for number, source in enumerate(table.sources, 1))
    notes = [*filter(None, [table.note()]), *table.failures, *sources]
    return Grid(title or table.title, headings, right, rows, notes, frozenset(breaks))
