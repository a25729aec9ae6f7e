"""What a table is made of: its specification, columns, rows and cells."""

import dataclasses
import functools
import re
from dataclasses import dataclass

from spark_bench.places import NAME_PATTERN
from spark_bench.records.json_schema import PERCENT_PATTERN
from spark_bench.tables.noise import CONFIDENCE, Sample

# What was chosen, or when: no more and no less of it is better.
_NO_MERIT = ('neighbours', 'penalty', 'iterations', 'converged', 'epoch_best', 'update_best')


@dataclass(frozen=True)
class Column:
    """One metric of one task."""

    task: str
    metric: str
    label: str

    @property
    def is_percent(self) -> bool:
        """Accuracies, AP and recall, in percent."""
        return re.match(PERCENT_PATTERN, self.metric) is not None

    @property
    def direction(self) -> int:
        """1 where higher is better: percentages, rates, shares of a limit; -1 of losses, times, sizes; 0 neither."""
        if self.metric.startswith(_NO_MERIT):
            return 0
        return 1 if self.is_percent or self.metric.endswith(('_per_s', '_share', '_up')) else -1

    @property
    def heading(self) -> str:
        """The label with an arrow that points to better."""
        return self.label + {1: ' ↑', -1: ' ↓', 0: ''}[self.direction]

    @property
    def digits(self) -> int:
        """Decimals in print."""
        return 1 if self.is_percent else 3


@dataclass(frozen=True)
class TableSpec:
    """What a table shows; ``build_table`` fills it from records.

    Lists and (task, metric, label) are taken for tuples and columns, as config files have them.

    Raises:
        ValueError: for a name that no file can have, and for what is neither list nor tuple.
    """

    name: str  # also of the files that hold the table
    title: str
    columns: tuple[Column, ...]
    methods: tuple[str, ...] | None = None  # rows of each backbone in order; None: those of the records
    archs: tuple[str, ...] | None = None  # backbones in order; None: those of the records, by the alphabet
    baseline: str = 'scratch'  # the method that Δ is taken from, on the same backbone
    pairs: tuple[tuple[str, str], ...] | None = None  # (backbone, method) that are expected; None: every combination
    best_of: str = 'backbone'  # what a best figure is the best of: its 'backbone', or the whole 'table'

    def __post_init__(self) -> None:
        if self.name and not re.match(NAME_PATTERN, self.name):
            raise ValueError(f'name is {self.name!r}; use letters, digits, ".", "_", "-", without ".." or leading "."')
        object.__setattr__(self, 'title', ' '.join(self.title.split()))
        for name in ('columns', 'methods', 'archs', 'pairs'):
            values = getattr(self, name)
            if not isinstance(values, (list, tuple, type(None))):
                raise ValueError(f'{name} is {values!r}, not a list')
            if values is not None:
                object.__setattr__(self, name, tuple(tuple(v) if isinstance(v, list) else v for v in values))
        columns = tuple(c if isinstance(c, Column) else Column(*c) for c in self.columns)
        object.__setattr__(self, 'columns', columns)
        if self.best_of not in ('backbone', 'table'):
            raise ValueError(f"best_of is {self.best_of!r}, not 'backbone' or 'table'")


@dataclass(frozen=True)
class Cell:
    """One metric of one row, over seeds; of a published row, one figure.

    A cell is never a partial mean, nor one over unlike runs: if any of the row's records of the task lacks the metric,
    if a run of it failed, or if they are of several recipes or data, ``value`` is None, while ``n`` and ``seeds`` still
    tell how many have it and how many there are.
    """

    value: float | None  # mean over seeds
    std: float | None  # sample standard deviation, None for fewer than two seeds
    n: int  # seeds that have the metric
    seeds: int  # seeds that have a record of the task, or failed
    delta: float | None = None  # value less that of the baseline row; None in the baseline row itself
    best: bool = False  # ahead of every other measured figure that it competes with, by more than the noise
    verified: bool = True  # False for a published figure that was not read in its source
    delta_verified: bool = True  # False if either side of delta is not verified: then it is no claim
    delta_beyond_noise: bool | None = None  # None where a side has one seed: its noise is unknown
    failures: tuple[tuple[int, str], ...] = ()  # (seed, why) of runs that failed
    data: tuple[str | None, float | None] = (None, None)  # of what its runs read, see ``Record.data``
    other_data: bool = False  # than the baseline's: then there is no delta
    mixed: str = ''  # in what its runs differ beside their seeds; empty where they are of one recipe and the same data
    sources: tuple[str, ...] = ()  # where a published figure stands

    @property
    def sample(self) -> Sample:
        """The figure of a complete cell, to be told from noise."""
        return Sample(self.value, self.std, self.n)

    @property
    def status(self) -> str:
        """'complete', 'missing' (no record), 'incomplete' (a seed lacks the metric), 'mixed', or 'failed' (a run)."""
        if self.failures or self.mixed:
            return 'failed' if self.failures else 'mixed'
        if self.seeds == 0:
            return 'missing'
        return 'complete' if self.n == self.seeds else 'incomplete'


@dataclass(frozen=True)
class Row:
    """One method on one backbone; measured and published figures never share a row."""

    arch: str
    method: str
    origin: str
    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        """The method as printed: with its origin unless measured, and a dagger where no figure is verified."""
        label = self.method if self.origin == 'measured' else f'{self.method} ({self.origin})'
        figures = [cell for cell in self.cells if cell.value is not None]
        return f'{label} †' if figures and not any(cell.verified for cell in figures) else label

    @property
    def status(self) -> str:
        """The worst of its cells' states."""
        found = {cell.status for cell in self.cells}
        return next((status for status in ('failed', 'mixed', 'incomplete', 'missing') if status in found), 'complete')


@dataclass(frozen=True)
class Table:
    """Rows grouped by backbone, each with one cell a column."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    baseline: str
    name: str = ''
    title: str = ''
    best_of: str = 'backbone'

    @property
    def percent_columns(self) -> list[int]:
        """Places of the columns that hold accuracies or average precision."""
        return [i for i, column in enumerate(self.columns) if column.is_percent]

    @property
    def archs(self) -> tuple[str, ...]:
        """The backbones, each once, in the order of the rows."""
        return tuple(dict.fromkeys(row.arch for row in self.rows))

    @functools.cached_property
    def firsts(self) -> frozenset[int]:
        """Numbers, from 0, of the rows that are the first of their backbone."""
        return frozenset(i for i, row in enumerate(self.rows) if i == 0 or self.rows[i - 1].arch != row.arch)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, row by row."""
        return tuple(cell for row in self.rows for cell in row.cells)

    def without_empty_rows(self) -> 'Table':
        """The table with those of its rows that have any figure."""
        rows = tuple(row for row in self.rows if any(cell.value is not None for cell in row.cells))
        return dataclasses.replace(self, rows=rows)

    @functools.cached_property
    def sources(self) -> tuple[str, ...]:
        """Where the published figures stand, each once, in the order in which they appear."""
        return tuple(dict.fromkeys(source for cell in self.cells for source in cell.sources))

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each failed run: backbone, method, task, seed and why."""
        return tuple(
            dict.fromkeys(
                f'{name}, seed {seed}: {why}' for name, cell in self._named_cells for seed, why in cell.failures
            )
        )

    @property
    def mixtures(self) -> tuple[str, ...]:
        """A line for each cell of unlike runs: backbone, method, task and in what they differ."""
        return tuple(dict.fromkeys(f'{name}: {cell.mixed}' for name, cell in self._named_cells if cell.mixed))

    @property
    def _named_cells(self) -> list[tuple[str, Cell]]:
        return [
            (f'{row.arch} {row.method} {column.task}', cell)
            for row in self.rows
            for column, cell in zip(self.columns, row.cells, strict=True)
        ]

    @property
    def note(self) -> str:
        """A few sentences on how to read the figures, in one line."""
        measured = [c for row in self.rows for c in row.cells if row.origin == 'measured' and c.value is not None]
        parts = []
        if any(cell.std is not None for cell in measured):
            parts.append('Mean ± sample standard deviation over n seeds; without ±, one seed.')
        elif measured:
            parts.append('One seed each: the noise is unknown, so that no figure is marked as best.')
        if any(cell.delta is not None for cell in self.cells):
            parts.append(f'Δ: difference from {self.baseline} on the same backbone.')
        if any(cell.other_data for cell in self.cells):
            parts.append(
                f'No Δ where a row read other data than {self.baseline}, or another share, and no mark among such rows.'
            )
        if any(cell.best for cell in self.cells):
            parts.append(
                f'Bold: the best measured figure of a {self.best_of}, ahead of every other by more than the '
                f"noise (Welch's t-test at {CONFIDENCE:.0%})."
            )
        if any(cell.status in ('missing', 'incomplete') for cell in self.cells):
            parts.append('–: not there, or not for every seed.')
        if self.failures:
            parts.append('failed: a run of this cell failed.')
        if self.mixtures:
            parts.append(f'mixed: no mean, its runs differ in more than their seeds: {"; ".join(self.mixtures)}.')
        if not all(cell.verified for cell in self.cells):
            parts.append('†: transcribed, not checked against its source, and no claim.')
        return ' '.join(parts)
