"""A table as a pure function of records, and its three forms: Markdown, CSV, terminal."""

import csv
import io
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spark_bench.errors import InputError
from spark_bench.records.schema import Record
from spark_bench.records.store import load_all, suite_folder, write_text_atomically

if TYPE_CHECKING:
    import rich.table

__all__ = [
    'COLUMNS',
    'METHODS',
    'Cell',
    'Column',
    'Row',
    'Table',
    'build_table',
    'load_suite',
    'order_methods',
    'print_table',
    'table_of_suite',
    'to_csv',
    'to_markdown',
    'to_rich',
]

# Rows appear in this order; a method that is not named here comes after these, by the alphabet.
METHODS = ('scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic')
COLUMNS = (
    ('classification', 'top1', 'top-1'),
    ('linear', 'top1', 'linear top-1'),
    ('knn', 'top1', 'k-NN top-1'),
    ('detection', 'box_ap', 'box AP'),
    ('detection', 'mask_ap', 'mask AP'),
)
ABSENT = '–'


@dataclass(frozen=True)
class Column:
    """One metric of one task."""

    task: str
    metric: str
    label: str

    @property
    def is_percent(self) -> bool:
        """Accuracies and AP, in percent and better when higher; any other metric is a loss."""
        return re.match(r'(top\d|box_ap|mask_ap)', self.metric) is not None

    @property
    def heading(self) -> str:
        """The label with an arrow that points to better."""
        return f'{self.label} {"↑" if self.is_percent else "↓"}'

    @property
    def digits(self) -> int:
        """Decimals in print."""
        return 1 if self.is_percent else 3


@dataclass(frozen=True)
class Cell:
    """One metric of one row, over seeds.

    A cell is never a partial mean: if any of the row's records of the task lacks the metric, `value` is
    None, while `n` and `seeds` still tell how many have it and how many there are.
    """

    value: float | None  # mean over seeds
    std: float | None  # sample standard deviation, None for fewer than two seeds
    n: int  # seeds that have the metric
    seeds: int  # seeds that have a record of the task
    delta: float | None = None  # value less that of the baseline row; None in the baseline row itself
    best: bool = False  # whether no row of the same backbone prints a better figure; ties are all best


@dataclass(frozen=True)
class Row:
    """One method on one backbone; measured and published figures never share a row."""

    arch: str
    method: str
    origin: str
    verified: bool  # False if any figure of the row was not read in its source
    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        """The method as printed: with its origin unless measured, and a dagger where not verified."""
        label = self.method if self.origin == 'measured' else f'{self.method} ({self.origin})'
        return label if self.verified else f'{label} †'


@dataclass(frozen=True)
class Table:
    """Rows grouped by backbone, each with one cell a column."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    baseline: str

    @property
    def archs(self) -> tuple[str, ...]:
        """The backbones, each once, in the order of the rows."""
        return tuple(dict.fromkeys(row.arch for row in self.rows))

    def note(self) -> str:
        """One line on how to read the figures."""
        parts = [f'Δ: difference from {self.baseline}.']
        if any(cell.std is not None for row in self.rows for cell in row.cells):
            parts.insert(0, 'Mean ± sample standard deviation over n seeds.')
        elif any(cell.value is not None for row in self.rows for cell in row.cells):
            parts.insert(0, 'One seed each.')
        if any(cell.value is None for row in self.rows for cell in row.cells):
            parts.append(f'{ABSENT}: not there, or not for every seed.')
        if not all(row.verified for row in self.rows):
            parts.append('†: transcribed, not checked against its source.')
        return ' '.join(parts)


def order_methods(methods: Iterable[str]) -> tuple[str, ...]:
    """`methods`, each once: those in METHODS first, in its order, then the others by the alphabet."""
    methods = set(methods)
    return (*(m for m in METHODS if m in methods), *sorted(methods.difference(METHODS)))


def build_table(
    records: Sequence[Record],
    *,
    methods: Sequence[str],
    columns: Sequence[tuple[str, str, str]],
    baseline: str = 'scratch',
) -> Table:
    """The table of `records`: for each backbone, one row for each of `methods` in that order.

    `columns` are (task, metric, label). Backbones are those of the records, by the alphabet; every one has
    a row for every method, also if it has no record yet. Published figures get rows of their own, only
    where there are any. Cell explains its own rules.

    Raises InputError if two records have one identity, or if they belong to different suites.
    """
    _refuse_mixtures(records)
    columns = tuple(Column(*column) for column in columns)
    tasks = {column.task for column in columns}
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.origin, record.arch, record.method, record.task), []).append(record)
    rows = []
    for arch in sorted({record.arch for record in records}):
        for origin in ('measured', 'published'):
            if any(key[:2] == (origin, arch) for key in groups):
                rows += _rows_of(groups, origin, arch, methods, columns, tasks, baseline)
    return Table(columns, tuple(rows), baseline)


def _rows_of(
    groups: dict,
    origin: str,
    arch: str,
    methods: Sequence[str],
    columns: tuple[Column, ...],
    tasks: set[str],
    baseline: str,
) -> list[Row]:
    def cells_of(method: str) -> list[Cell]:
        return [_summarise(groups.get((origin, arch, method, column.task), []), column) for column in columns]

    plain = {method: cells_of(method) for method in methods}
    bases = cells_of(baseline)
    best = [_best_print([cells[i] for cells in plain.values()], column) for i, column in enumerate(columns)]
    rows = []
    for method, cells in plain.items():
        sources = [r for task in tasks for r in groups.get((origin, arch, method, task), [])]
        if origin == 'published' and not sources:
            continue
        finished = []
        for cell, base, top, column in zip(cells, bases, best, columns, strict=True):
            known = method != baseline and cell.value is not None and base.value is not None
            delta = cell.value - base.value if known else None
            is_best = cell.value is not None and round(cell.value, column.digits) == top
            finished.append(Cell(cell.value, cell.std, cell.n, cell.seeds, delta, is_best))
        verified = all(r.verified is not False for r in sources)
        rows.append(Row(arch, method, origin, verified, tuple(finished)))
    return rows


def _summarise(records: Sequence[Record], column: Column) -> Cell:
    values = [r.metrics.get(column.metric) for r in records]
    known = [value for value in values if value is not None]
    complete = bool(known) and len(known) == len(values)
    return Cell(
        value=statistics.fmean(known) if complete else None,
        std=statistics.stdev(known) if complete and len(known) > 1 else None,
        n=len(known),
        seeds=len(records),
    )


def _best_print(cells: Sequence[Cell], column: Column) -> float | None:
    """The best figure as printed, so that two equal figures are never told apart; None for fewer than two."""
    values = [round(cell.value, column.digits) for cell in cells if cell.value is not None]
    if len(values) < 2:
        return None
    return max(values) if column.is_percent else min(values)


def _refuse_mixtures(records: Sequence[Record]) -> None:
    seen = set()
    for record in records:
        if record.identity in seen:
            raise InputError(f'two records of {"/".join(map(str, record.identity))}; pass each record once')
        seen.add(record.identity)
    suites = sorted({record.suite for record in records})
    if len(suites) > 1:
        raise InputError(f'records of several suites in one table: {", ".join(suites)}; choose one')


def value_text(cell: Cell, column: Column) -> str:
    """A cell in print, such as '41.2' or '41.2 ± 0.3 (n=3)'; a dash where there is no value."""
    if cell.value is None:
        return ABSENT if cell.n == 0 else f'{ABSENT} ({cell.n} of {cell.seeds} seeds)'
    text = f'{cell.value:.{column.digits}f}'
    return text if cell.std is None else f'{text} ± {cell.std:.{column.digits}f} (n={cell.n})'


def delta_text(cell: Cell, column: Column) -> str:
    """The difference from the baseline with its sign; empty where there is none to state."""
    if cell.delta is None:
        return ''
    rounded = round(cell.delta, column.digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f'{rounded:+.{column.digits}f}'.replace('-', '−')


def delta_verdict(cell: Cell, column: Column) -> str:
    """'better' or 'worse' than the baseline as printed; empty where there is no difference to see."""
    rounded = round(cell.delta or 0.0, column.digits)
    if not rounded:
        return ''
    return 'better' if (rounded > 0) == column.is_percent else 'worse'


def to_markdown(table: Table) -> str:
    """A Markdown table, the best figures bold, with the note below it."""
    headings = ['backbone', 'method']
    for column in table.columns:
        headings += [column.heading, 'Δ']
    lines = [headings, ['---', '---', *['---:'] * (2 * len(table.columns))]]
    for row in table.rows:
        line = [row.arch, row.label]
        for cell, column in zip(row.cells, table.columns, strict=True):
            text = value_text(cell, column)
            line += [f'**{text}**' if cell.best else text, delta_text(cell, column)]
        lines.append(line)
    escaped = ['| ' + ' | '.join(text.replace('|', '\\|') for text in line) + ' |' for line in lines]
    return '\n'.join([*escaped, '', table.note(), ''])


def to_csv(table: Table) -> str:
    """One line a cell with every digit; empty fields where there is no number."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    writer.writerow(['arch', 'method', 'origin', 'verified', 'task', 'metric', 'n', 'seeds', 'value', 'std', 'delta'])
    for row in table.rows:
        for cell, column in zip(row.cells, table.columns, strict=True):
            numbers = ['' if x is None else repr(x) for x in (cell.value, cell.std, cell.delta)]
            writer.writerow(
                [
                    row.arch,
                    row.method,
                    row.origin,
                    str(row.verified).lower(),
                    column.task,
                    column.metric,
                    cell.n,
                    cell.seeds,
                    *numbers,
                ]
            )
    return buffer.getvalue()


def to_rich(table: Table, title: str | None = None) -> 'rich.table.Table':
    """The table for a terminal, a rule between backbones."""
    import rich.box
    import rich.table
    import rich.text

    styles = {'better': 'green', 'worse': 'red', '': ''}
    grid = rich.table.Table(
        title=title,
        caption=table.note(),
        box=rich.box.SIMPLE_HEAD,
        title_justify='left',
        caption_justify='left',
    )
    grid.add_column('backbone')
    grid.add_column('method')
    for column in table.columns:
        grid.add_column(column.heading, justify='right')
        grid.add_column('Δ', justify='right', no_wrap=True)
    for i, row in enumerate(table.rows):
        first = i == 0 or table.rows[i - 1].arch != row.arch
        last = i + 1 < len(table.rows) and table.rows[i + 1].arch != row.arch
        line = [rich.text.Text(row.arch if first else ''), rich.text.Text(row.label)]
        for cell, column in zip(row.cells, table.columns, strict=True):
            line += [
                rich.text.Text(value_text(cell, column), style='bold' if cell.best else ''),
                rich.text.Text(delta_text(cell, column), style=styles[delta_verdict(cell, column)]),
            ]
        grid.add_row(*line, end_section=last)
    return grid


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
    """The table of one suite: its methods in order; of COLUMNS, those whose task has any record."""
    tasks = {record.task for record in records}
    columns = [column for column in COLUMNS if column[0] in tasks] or \
        [column for column in COLUMNS if column[0] not in ('linear', 'knn')]
    return build_table(records, methods=order_methods(record.method for record in records), columns=columns)


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
