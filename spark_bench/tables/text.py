"""What stands in a cell in every format, and a table in words for a terminal."""

from spark_bench.tables.grid import Grid
from spark_bench.tables.parts import Cell, Column, Row, Table

ABSENT = '–'
LONGEST = 1e6  # from here on a number in print has an exponent
DAGGER = '†'  # on every figure that was not read in its source
STYLES = {'better': 'green', 'worse': 'red', '': ''}


def value_text(cell: Cell, column: Column) -> str:
    """A cell in print, such as '41.2', '41.2 ± 0.3 (n=3)' or '83.2†'; without a value a dash, 'failed' or 'mixed'."""
    if cell.value is None:
        word = cell.status if cell.status in ('failed', 'mixed') else ABSENT
        return word if cell.n == 0 else f'{word} ({cell.n} of {cell.seeds} seeds)'
    text = _number(cell.value, column.digits)
    if cell.std is not None:
        text += f' ± {_number(cell.std, column.digits)} (n={cell.n})'
    return text if cell.verified else text + DAGGER


def figure_text(value: float | None) -> str:
    """A metric by itself: four digits, but counts to the last one."""
    if value is None:
        return '–'
    return f'{value:,.0f}' if abs(value) >= 1000 and value == int(value) else f'{value:.4g}'


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
    if not rounded * column.direction or not cell.delta_verified or cell.delta_beyond_noise is False:
        return ''
    return 'better' if rounded * column.direction > 0 else 'worse'


def source_marks(cell: Cell, table: Table) -> tuple[int, ...]:
    """The numbers, from 1, that the sources of a cell have in ``table.sources``."""
    return tuple(table.sources.index(source) + 1 for source in cell.sources)


def to_grid(table: Table, title: str | None = None) -> Grid:
    """The table in words, a gap between backbones; best figures are bold, differences green or red."""
    headings = ['backbone', 'method']
    for column in table.columns:
        headings += [column.heading, 'Δ']
    rows = [_words(table, row, i in table.firsts) for i, row in enumerate(table.rows)]
    sources = (f'[{number}] {source}' for number, source in enumerate(table.sources, 1))
    notes = [*filter(None, [table.note]), *table.failures, *sources]
    right = [False, False, *[True] * (2 * len(table.columns))]
    return Grid(title or table.title, headings, right, rows, notes, table.firsts - {0})


def _words(table: Table, row: Row, first: bool) -> list[tuple[tuple[str, str], ...]]:
    line: list[tuple[tuple[str, str], ...]] = [((row.arch if first else '', ''),), ((row.label, ''),)]
    for cell, column in zip(row.cells, table.columns, strict=True):
        marks = ''.join(f' [{number}]' for number in source_marks(cell, table))
        line += [
            ((value_text(cell, column), 'bold' if cell.best else ''), (marks, 'dim')),
            ((delta_text(cell, column), STYLES[delta_verdict(cell, column)]),),
        ]
    return line
