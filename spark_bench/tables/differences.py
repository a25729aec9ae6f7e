"""``spark-bench compare``: two sets of records in one table: what differs, and whether it is more than noise."""

import argparse
import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spark_bench.errors import InputError
from spark_bench.records.compare import Pair, load_set, pair_up
from spark_bench.records.merge import merge
from spark_bench.records.schema import Record, is_other_data
from spark_bench.tables.build import order_methods, quote, summarise
from spark_bench.tables.grid import Grid, plain_text
from spark_bench.tables.markdown import escape_markdown, markdown_lines
from spark_bench.tables.noise import CONFIDENCE, VERDICTS, is_beyond_noise, is_equal
from spark_bench.tables.output import choose_format, give
from spark_bench.tables.parts import Cell, Column
from spark_bench.tables.suite import COLUMNS
from spark_bench.tables.text import DAGGER, delta_text, value_text

FIGURES = ('A', 'B', 'B − A', 'B / A')  # headings of the columns that stand to the right
NOTE = (
    f'Mean ± sample standard deviation over n seeds. Beyond the noise: by a t-test of Welch at {CONFIDENCE:.0%}; '
    f'one seed tells nothing about noise. {DAGGER}: not checked against its source, and no claim.'
)


@dataclass(frozen=True)
class Difference:
    """One metric of one method on one backbone in both sets."""

    name: tuple[str, ...]  # of the pair
    column: Column
    a: Cell
    b: Cell
    configs: str  # of the pair

    @property
    def delta(self) -> float | None:
        """Value of B less that of A."""
        return None if self.a.value is None or self.b.value is None else self.b.value - self.a.value

    @property
    def ratio(self) -> float | None:
        """Value of B over that of A, of what a profile measured: by how much is what is asked there."""
        is_known = self.column.task.startswith('profile') and self.b.value is not None and self.a.value
        return self.b.value / self.a.value if is_known else None

    @property
    def is_verified(self) -> bool:
        """Whether both figures were read in their sources, so that the difference can be claimed."""
        return self.a.verified and self.b.verified

    @property
    def verdict(self) -> str:
        """What can be said of the difference, in a few words."""
        if self.a.seeds == 0 or self.b.seeds == 0:
            return f'only in {"A" if self.b.seeds == 0 else "B"}'
        if self.a.mixed or self.b.mixed:
            return 'mixed'
        if self.delta is None:
            return 'incomplete'
        if is_other_data(self.a.data, self.b.data):
            return 'other data'
        if not self.is_verified:
            return 'not verified'
        if is_equal(self.a.value, self.b.value):
            return 'equal'
        return VERDICTS[is_beyond_noise(self.a.sample, self.b.sample)]

    @property
    def texts(self) -> tuple[str, ...]:
        """The line in print, see ``Differences.headings``."""
        cell = Cell(None, None, 0, 0, delta=self.delta, delta_verified=self.is_verified)
        sides = (value_text(side, self.column) for side in (self.a, self.b))
        change = delta_text(cell, self.column) if self.ratio is None else f'{self.ratio:.2f} ×'
        return *self.name, self.column.metric, *sides, change, self.verdict, self.configs


@dataclass(frozen=True)
class Differences:
    """The table of a comparison."""

    names: list[str]  # what the parts of each name are
    rows: list[Difference]
    changes: dict[tuple[str, ...], list[str]]  # from the name of a pair to what differs in its recipes

    @property
    def headings(self) -> list[str]:
        """Of the columns in print."""
        change = FIGURES[3] if all(row.column.task.startswith('profile') for row in self.rows) else FIGURES[2]
        return [*self.names, 'metric', *FIGURES[:2], change, 'difference', 'config']

    @property
    def notes(self) -> list[str]:
        """Below the table: how to read it, and in which values recipes differ, A's first."""
        return [NOTE, *(f'{" ".join(name)}: {", ".join(changes)}' for name, changes in self.changes.items() if changes)]

    def to_markdown(self) -> str:
        """As a Markdown table."""
        rule = ['---:' if heading in FIGURES else '---' for heading in self.headings]
        lines = markdown_lines([self.headings, rule, *(map(escape_markdown, row.texts) for row in self.rows)])
        return '\n\n'.join(['\n'.join(lines), NOTE, *map(escape_markdown, self.notes[1:])]) + '\n'

    def to_csv(self) -> str:
        """With every digit."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator='\n')
        sides = [f'{side}_{what}' for side in 'ab' for what in ('value', 'std', 'n', 'seeds', 'mark')]
        writer.writerow([*self.names, 'metric', *sides, 'delta', 'delta_mark', 'difference', 'config'])
        for row in self.rows:
            cells = [
                value
                for cell in (row.a, row.b)
                for value in (cell.value, cell.std, cell.n, cell.seeds, '' if cell.verified else DAGGER)
            ]
            mark = '' if row.delta is None or row.is_verified else DAGGER
            writer.writerow([*row.name, row.column.metric, *cells, row.delta, mark, row.verdict, row.configs])
        return buffer.getvalue()

    def to_grid(self) -> Grid:
        """In words; what is beyond the noise is bold."""
        rows = [[((text, 'bold' if row.verdict == VERDICTS[True] else ''),) for text in row.texts] for row in self.rows]
        return Grid('', self.headings, [heading in FIGURES for heading in self.headings], rows, self.notes)


FORMATS: dict[str, Callable[[Differences], str]] = {
    'terminal': lambda differences: plain_text(differences.to_grid()),
    'markdown': Differences.to_markdown,
    'csv': Differences.to_csv,
}
# How each of them begins: so is an earlier comparison told from what somebody else wrote.
OWN = (
    rb'\n  ((origin|suite) +)*task +backbone +method +metric |'
    rb'\| ((origin|suite) \| )*task \| backbone \| method \| metric \||'
    rb'((origin|suite),)*task,backbone,method,metric,a_value,'
)


def main(args: argparse.Namespace) -> int:
    """Answer ``spark-bench compare``; exit status 0, or 1 if a merge found conflicts.

    Raises:
        InputError: if a set holds no record or an unsound one, if no record has a metric that was asked for, or if a
            file cannot be written.
    """
    name = choose_format(args.format, args.output, FORMATS, OWN)
    a, b = (load_set(path, curves=args.merge is not None) for path in (args.a, args.b))
    _refuse_unknown(args.metric or (), [*a, *b])
    differences = compare(a, b, metrics=args.metric)
    give(FORMATS[name](differences), [differences.to_grid()], name, args.output)
    return merge(a, b, args.merge) if args.merge is not None else 0


def _refuse_unknown(metrics: Sequence[str], records: Sequence[Record]) -> None:
    known = {metric for record in records for metric in record.metrics}
    for metric in metrics:
        if metric not in known:
            raise InputError(f'--metric {metric}: no record has it; there are {", ".join(sorted(known))}')


def compare(a: Sequence[Record], b: Sequence[Record], metrics: Sequence[str] | None = None) -> Differences:
    """A difference for each cell and metric that either set has; cells are matched as ``pair_up`` does.

    What both quote alike from others is left out beside measurements.

    Args:
        metrics: names; None for those of tables and the loss of pretraining.
    """
    names, pairs = pair_up(a, b)
    rank = {method: i for i, method in enumerate(order_methods(pair.name[-1] for pair in pairs))}
    rows = []
    for pair in sorted(pairs, key=lambda pair: (pair.name[:-1], rank[pair.name[-1]])):
        for column in _columns(pair, metrics):
            cell_a, cell_b = (_cell(records, column) for records in (pair.a, pair.b))
            if names[0] != 'origin' or pair.name[0] != 'published' or cell_a != cell_b:
                rows.append(Difference(pair.name, column, cell_a, cell_b, pair.configs))
    return Differences(names, rows, {pair.name: pair.changes for pair in pairs})


def _columns(pair: Pair, metrics: Sequence[str] | None) -> list[Column]:
    task = pair.name[-3]
    usual = [column.metric for column in COLUMNS if column.task == task.partition('_')[0]] or ['loss']
    known = {metric for record in (*pair.a, *pair.b) for metric in record.metrics}
    return [Column(task, metric, metric) for metric in metrics or usual if metric in known]


def _cell(records: Sequence[Record], column: Column) -> Cell:
    return (quote if records and records[0].origin == 'published' else summarise)(records, column)
