"""Two sets of records side by side: what differs, and whether it is more than noise."""

import csv
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spark_bench.errors import InputError
from spark_bench.files import claim_output
from spark_bench.records.grid import Grid, plain_text, show
from spark_bench.records.merge import merge
from spark_bench.records.noise import CONFIDENCE, is_beyond_noise, is_equal
from spark_bench.records.schema import ORIGINS, Record
from spark_bench.records.store import paths_below, read_many, write_text_output
from spark_bench.records.table import COLUMNS, SUFFIXES
from spark_bench.records.table_build import order_methods, quote, sample_of, summarise
from spark_bench.records.table_parts import Cell, Column
from spark_bench.records.table_text import DAGGER, delta_text, escape_markdown, value_text

__all__ = ['Difference', 'compare', 'load_set', 'main', 'to_csv', 'to_grid', 'to_markdown']

EMPTY = Cell(None, None, 0, 0)


@dataclass(frozen=True)
class Difference:
    """One metric of one method on one backbone in both sets."""

    name: tuple[str, ...]  # task, backbone, method; before them origin and suite, where the sets hold several
    column: Column
    a: Cell
    b: Cell
    configs: str  # 'same' or 'other' for the configurations of the two, 'other seeds'; empty where one has none

    @property
    def delta(self) -> float | None:
        """Value of B less that of A."""
        return None if self.a.value is None or self.b.value is None else self.b.value - self.a.value

    @property
    def is_verified(self) -> bool:
        """Whether both figures were read in their sources, so that the difference can be claimed."""
        return self.a.verified and self.b.verified

    @property
    def verdict(self) -> str:
        """What can be said of the difference, in a few words."""
        if self.a.seeds == 0 or self.b.seeds == 0:
            return f'only in {"A" if self.b.seeds == 0 else "B"}'
        if self.delta is None:
            return 'incomplete'
        if not self.is_verified:
            return 'not verified'
        if is_equal(self.a.value, self.b.value):
            return 'equal'
        beyond = is_beyond_noise(sample_of(self.a), sample_of(self.b))
        return {True: 'beyond the noise', False: 'within the noise', None: 'noise unknown'}[beyond]

    @property
    def texts(self) -> tuple[str, ...]:
        """The line in print: name, metric, A, B, B − A, verdict, configurations."""
        cell = Cell(None, None, 0, 0, delta=self.delta, delta_verified=self.is_verified)
        sides = (value_text(side, self.column) for side in (self.a, self.b))
        return *self.name, self.column.metric, *sides, delta_text(cell, self.column), self.verdict, self.configs


def main(args) -> int:
    """Answer `spark-bench compare`; exit status 0, or 1 if a merge found conflicts.

    Raises InputError if a set holds no record or an unsound one, if no record has a metric that was asked for, or if a
    file cannot be written.
    """
    name = args.format or (SUFFIXES.get(Path(args.output).suffix.lower()) if args.output else 'terminal')
    if name not in FORMATS:
        raise InputError(f'--output {args.output}: no format ends so; name one with --format: {", ".join(FORMATS)}')
    if args.output:
        claim_output(args.output, OWN)
    sets = [load_set(path, curves=args.merge is not None) for path in (args.a, args.b)]
    _refuse_unknown(args.metric or (), [record for records in sets for record in records])
    compared = compare(*sets, metrics=args.metric)
    if args.output:
        print(f'written: {write_text_output(args.output, FORMATS[name](compared))}')
    elif name == 'terminal':
        show(to_grid(compared))
    else:
        sys.stdout.write(FORMATS[name](compared))
    return merge(*sets, args.merge) if args.merge is not None else 0


def _refuse_unknown(metrics: Sequence[str], records: Sequence[Record]) -> None:
    known = {metric for record in records for metric in record.metrics}
    for metric in metrics:
        if metric not in known:
            raise InputError(f'--metric {metric}: no record has it; there are {", ".join(sorted(known))}')


def load_set(path: str | Path, curves: bool = True) -> list[Record]:
    """The records of a results folder, of any folder inside one, or of one file.

    Raises InputError if there is none, or if one is unsound.
    """
    path = Path(path)
    folders = [path / origin for origin in ORIGINS if os.path.isdir(path / origin)] or [path]
    paths = [str(path)] if os.path.isfile(path) else [file for folder in folders for file in paths_below(folder)]
    if not paths:
        raise InputError(f'no record in {path}: name a results folder, a folder inside one, or a record')
    return read_many(paths, curves)


def compare(
    a: Sequence[Record], b: Sequence[Record], metrics: Sequence[str] | None = None
) -> tuple[list[str], list[Difference]]:
    """The names of the leading columns, and a difference for each cell and metric that either set has.

    Cells are matched by task, backbone and method. Origin and suite must match too, except where each set has
    only one: so can two suites be compared, or what was measured with what was published. `metrics` default to
    those of tables and the loss of pretraining. What both quote alike from others is left out beside measurements.
    """
    parts = [
        part for part in ('origin', 'suite') if any(len({getattr(r, part) for r in records}) > 1 for records in (a, b))
    ]
    sides = [_grouped(records, parts) for records in (a, b)]
    found = {*sides[0], *sides[1]}
    rank = {method: i for i, method in enumerate(order_methods(name[-1] for name in found))}
    differences = []
    for name in sorted(found, key=lambda name: (name[:-1], rank[name[-1]])):
        pair = [side.get(name, []) for side in sides]
        for column in _columns(name[-3], [*pair[0], *pair[1]], metrics):
            cells = [_cell(records, column) for records in pair]
            if 'origin' in parts and name[0] == 'published' and cells[0] == cells[1]:
                continue
            differences.append(Difference(name, column, *cells, _configs(*pair)))
    return [*parts, 'task', 'backbone', 'method'], differences


def _grouped(records: Sequence[Record], parts: Sequence[str]) -> dict[tuple[str, ...], list[Record]]:
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        name = (*(getattr(record, part) for part in parts), record.task, record.arch, record.method)
        groups.setdefault(name, []).append(record)
    return groups


def _columns(task: str, records: Sequence[Record], metrics: Sequence[str] | None) -> list[Column]:
    kind = task.partition('_')[0]
    usual = [column.metric for column in COLUMNS if column.task == kind] or ['loss']
    known = {metric for record in records for metric in record.metrics}
    return [Column(task, metric, metric) for metric in metrics or usual if metric in known]


def _cell(records: Sequence[Record], column: Column) -> Cell:
    if not records:
        return EMPTY
    return (quote if records[0].origin == 'published' else summarise)(records, column)


def _configs(a: Sequence[Record], b: Sequence[Record]) -> str:
    """Whether the configurations are the same, whatever the seeds.

    Records of before they had a `setup_hash` tell only of their very run: where such have no seed in common, nothing
    but the seeds is known to differ.
    """
    hashes = [{record.config_hash for record in records} - {None} for records in (a, b)]
    if not all(hashes):
        return ''
    setups = [{record.setup_hash for record in records} for records in (a, b)]
    if None not in setups[0] | setups[1]:
        return 'same' if setups[0] == setups[1] else 'other'
    runs = [{record.seed: record.config_hash for record in records} for records in (a, b)]
    common = runs[0].keys() & runs[1].keys()
    if common:
        return 'same' if all(runs[0][seed] == runs[1][seed] for seed in common) else 'other'
    return 'same' if hashes[0] == hashes[1] else 'other seeds'


def _headings(names: Sequence[str]) -> list[str]:
    return [*names, 'metric', 'A', 'B', 'B − A', 'difference', 'config']


NOTE = (
    f'Mean ± sample standard deviation over n seeds. Beyond the noise: by a t-test of Welch at {CONFIDENCE:.0%}; one '
    f'seed tells nothing about noise. {DAGGER}: not checked against its source, and no claim.'
)


def to_markdown(compared: tuple[list[str], list[Difference]]) -> str:
    """The result of `compare` as a Markdown table."""
    names, differences = compared
    headings = _headings(names)
    rule = ['---:' if heading in ('A', 'B', 'B − A') else '---' for heading in headings]
    lines = [headings, rule, *(map(escape_markdown, d.texts) for d in differences)]
    return '\n'.join([*('| ' + ' | '.join(line) + ' |' for line in lines), '', NOTE, ''])


def to_csv(compared: tuple[list[str], list[Difference]]) -> str:
    """The result of `compare` with every digit."""
    names, differences = compared
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    sides = [f'{side}_{what}' for side in 'ab' for what in ('value', 'std', 'n', 'seeds', 'mark')]
    writer.writerow([*names, 'metric', *sides, 'delta', 'delta_mark', 'difference', 'config'])
    for d in differences:
        cells = [
            '' if value is None else value
            for cell in (d.a, d.b)
            for value in (cell.value, cell.std, cell.n, cell.seeds, '' if cell.verified else DAGGER)
        ]
        delta = ['' if d.delta is None else d.delta, '' if d.delta is None or d.is_verified else DAGGER]
        writer.writerow([*d.name, d.column.metric, *cells, *delta, d.verdict, d.configs])
    return buffer.getvalue()


def to_grid(compared: tuple[list[str], list[Difference]]) -> Grid:
    """The result of `compare` in words; what is beyond the noise is bold."""
    names, differences = compared
    headings = _headings(names)
    rows = []
    for d in differences:
        style = 'bold' if d.verdict == 'beyond the noise' else ''
        rows.append([((text, style),) for text in d.texts])
    return Grid('', headings, [heading in ('A', 'B', 'B − A') for heading in headings], rows, [NOTE])


FORMATS: dict[str, Callable[[tuple[list[str], list[Difference]]], str]] = {
    'terminal': lambda compared: plain_text(to_grid(compared)),
    'markdown': to_markdown,
    'csv': to_csv,
}
# How each of them begins: so is an earlier comparison told from what somebody else wrote.
OWN = (
    rb'\n  ((origin|suite) +)*task +backbone +method +metric |'
    rb'\| ((origin|suite) \| )*task \| backbone \| method \| metric \||'
    rb'((origin|suite),)*task,backbone,method,metric,a_value,'
)
