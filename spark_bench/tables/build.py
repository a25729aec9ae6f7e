"""A table as a pure function of records."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from itertools import combinations

from spark_bench.errors import InputError
from spark_bench.records.differences import keys_that_differ
from spark_bench.records.schema import Record, is_other_data
from spark_bench.tables.noise import deviation, is_beyond_noise
from spark_bench.tables.parts import Cell, Column, Row, Table, TableSpec

# Rows appear in this order; a method that is not named here comes after these, by the alphabet.
METHODS = ('scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic')
Failure = tuple[str, str, str, int, str]  # (task, arch, method, seed, why) of a run that failed


def order_methods(methods: Iterable[str]) -> tuple[str, ...]:
    """``methods``, each once: those in METHODS first, in its order, then the others by the alphabet."""
    methods = set(methods)
    return (*(m for m in METHODS if m in methods), *sorted(methods.difference(METHODS)))


def group_by_cell(records: Iterable[Record]) -> dict[tuple[str, str, str, str], list[Record]]:
    """The records of each cell, by ``Record.cell``."""
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault(record.cell, []).append(record)
    return groups


def build_table(records: Sequence[Record], spec: TableSpec, failed: Sequence[Failure] = ()) -> Table:
    """The table that ``spec`` describes, filled from ``records``: a group of rows for each backbone.

    Measured figures come first in a group, a row for each method, also for one without a record; published ones
    have rows of their own below, where there are any. Where ``spec`` lists no methods, those that were measured on any
    backbone have their rows on each. A backbone of which nothing was measured shows its measured rows too, as missing,
    if ``spec`` lists it and anything else of the table was measured. Cell states what is shown where records are absent
    or incomplete; ``mark_best`` which figures are marked.

    Args:
        records: measured and published, of one suite; those of other tasks, methods or backbones are left out.
        failed: runs without a record, as (task, arch, method, seed, why). One that has a record is not failed.

    Raises:
        InputError: if two records have one identity, if they belong to different suites, or if two published
            records state different figures for one cell.
    """
    _refuse_mixtures(records)
    contents = _Contents(records, failed)
    methods = spec.methods or order_methods([*(r.method for r in records), *(f[2] for f in contents.failed)])
    archs = spec.archs or sorted({*(r.arch for r in records), *(f[1] for f in contents.failed)})
    rows: list[Row] = []
    for arch in archs:
        for origin in ('measured', 'published'):
            shown = [method for method in methods if contents.shows(spec, origin, arch, method)]
            rows += _rows_of(contents, spec, origin, arch, shown)
    return Table(spec.columns, tuple(mark_best(rows, spec)), spec.baseline, spec.name, spec.title, spec.best_of)


_DRAWS = ('seed', 'fraction_seed')  # keys of recipes that seeds decide


class _Contents:
    """Records by (origin, arch, method) and task, and failures by (arch, method, task)."""

    def __init__(self, records: Sequence[Record], failed: Sequence[Failure]) -> None:
        self.groups: dict[tuple[str, str, str], dict[str, list[Record]]] = {}
        for record in records:
            tasks = self.groups.setdefault((record.origin, record.arch, record.method), {})
            tasks.setdefault(record.task, []).append(record)
        done = {(r.task, r.arch, r.method, r.seed) for r in records if r.origin == 'measured'}
        self.failed = [failure for failure in failed if tuple(failure[:4]) not in done]
        self.failures: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
        for task, arch, method, seed, why in self.failed:
            self.failures.setdefault((arch, method, task), []).append((seed, why))
        self.methods = {key[2] for key in self.groups if key[0] == 'measured'} | {f[2] for f in self.failed}
        self.archs = {(origin, arch) for origin, arch, _ in self.groups} | {('measured', f[1]) for f in self.failed}

    def shows(self, spec: TableSpec, origin: str, arch: str, method: str) -> bool:
        tasks = self.groups.get((origin, arch, method), {})
        if origin == 'published':
            return any(column.task in tasks for column in spec.columns)
        known = bool(tasks) or any((arch, method, column.task) in self.failures for column in spec.columns)
        if known or spec.pairs is not None and (arch, method) not in spec.pairs:
            return known
        if spec.methods is None and method not in self.methods:
            return False
        if ('measured', arch) in self.archs:
            return True
        # Of this backbone nothing was measured. Where all the table has is published, that stands alone.
        anything = any(origin == 'measured' for origin, _ in self.archs)
        return spec.archs is not None and (anything or ('published', arch) not in self.archs)

    def cell(self, origin: str, arch: str, method: str, column: Column) -> Cell:
        records = self.groups.get((origin, arch, method), {}).get(column.task, [])
        if origin == 'published':
            return quote(records, column)
        return summarise(records, column, sorted(self.failures.get((arch, method, column.task), [])))


def _rows_of(contents: _Contents, spec: TableSpec, origin: str, arch: str, methods: Sequence[str]) -> list[Row]:
    bases = [contents.cell(origin, arch, spec.baseline, column) for column in spec.columns]
    rows = []
    for method in methods:
        cells = [contents.cell(origin, arch, method, column) for column in spec.columns]
        if method != spec.baseline:
            cells = [_with_delta(cell, base) for cell, base in zip(cells, bases, strict=True)]
        rows.append(Row(arch, method, origin, tuple(cells)))
    return rows


def _with_delta(cell: Cell, base: Cell) -> Cell:
    if cell.value is None or base.value is None:
        return cell
    if is_other_data(cell.data, base.data):
        return dataclasses.replace(cell, other_data=True)
    verified = cell.verified and base.verified
    beyond = is_beyond_noise(cell.sample, base.sample) if verified else None
    return dataclasses.replace(cell, delta=cell.value - base.value, delta_verified=verified, delta_beyond_noise=beyond)


def summarise(records: Sequence[Record], column: Column, failures: Sequence[tuple[int, str]] = ()) -> Cell:
    """The measured records of one task as a cell; ``failures`` are (seed, why)."""
    values = [r.metrics.get(column.metric) for r in records]
    known = [value for value in values if value is not None]
    mixed = mixture(records)
    complete = bool(known) and len(known) == len(values) and not failures and not mixed
    return Cell(
        value=statistics.fmean(known) if complete else None,
        std=deviation(known) if complete and len(known) > 1 else None,
        n=len(known),
        seeds=len(records) + len({seed for seed, _ in failures}),
        failures=tuple(failures),
        data=records[0].data if records else (None, None),
        mixed=mixed,
    )


def mixture(records: Sequence[Record]) -> str:
    """In what the records of a cell differ beside seeds and weights, which others may have trained; '' if in nothing.

    Those of before records had a recipe tell of their data alone.
    """
    records = sorted(records, key=lambda record: record.seed)
    for known in (
        [record for record in records if record.data[0] is not None],
        [record for record in records if record.recipe is not None],
    ):
        for record in known[1:]:
            first = known[0]
            if record.setup_hash is not None and record.setup_hash == first.setup_hash:  # as for nearly all
                continue
            differing = ['other data'] if record.data[0] != first.data[0] else []
            if None not in (first.recipe, record.recipe):
                differing += keys_that_differ(first.recipe, record.recipe, apart=_DRAWS, word='and')
            if differing:
                return f'seeds {first.seed} and {record.seed}, {"; ".join(differing)}'
    return ''


def quote(records: Sequence[Record], column: Column) -> Cell:
    """The published figure of one cell; several sources may state it, and one that was read goes before others.

    Raises:
        InputError: if two of equal standing state different figures.
    """
    stating = [r for r in records if r.metrics.get(column.metric) is not None]
    trusted = [r for r in stating if r.verified] or stating
    if not trusted:
        return Cell(None, None, 0, 0)
    trusted.sort(key=lambda r: r.seed)
    value = trusted[0].metrics[column.metric]
    for other in trusted[1:]:
        if other.metrics[column.metric] != value:
            places = ' and '.join('/'.join(map(str, r.identity)) for r in (trusted[0], other))
            raise InputError(
                f'{places} state different figures for {column.metric}: give one of them a variant of its '
                'own in its task, or move it to another suite'
            )
    sources = tuple(dict.fromkeys(r.source for r in trusted if r.source))
    return Cell(value, None, 1, 1, verified=bool(trusted[0].verified), sources=sources)


def mark_best(rows: Sequence[Row], spec: TableSpec) -> list[Row]:
    """``rows`` with ``best`` set in each column, at most once for each backbone or for the whole table.

    A figure is best if it is measured, competes with at least one other measured figure, and is ahead of every
    one of them: as printed, and by more than the noise (``is_beyond_noise``). So there is no mark in a column where
    any competitor has one seed, as its noise is unknown, nor between ties. Missing, incomplete and failed cells
    do not compete. Published figures never carry the mark: what they vary by is not known.
    """
    marks = set()
    for place, column in enumerate(spec.columns):
        competing: dict[str, list[tuple[int, Cell]]] = {}
        for index, row in enumerate(rows):
            if row.origin == 'measured' and row.cells[place].value is not None:
                group = row.arch if spec.best_of == 'backbone' else ''
                competing.setdefault(group, []).append((index, row.cells[place]))
        marks |= {(_winner(group, column), place) for group in competing.values()}
    return [
        dataclasses.replace(
            row,
            cells=tuple(
                dataclasses.replace(cell, best=(index, place) in marks) for place, cell in enumerate(row.cells)
            ),
        )
        for index, row in enumerate(rows)
    ]


def _winner(competing: Sequence[tuple[int, Cell]], column: Column) -> int | None:
    """The number of the row that is best of those that compete; None where none is."""
    if not column.direction or any(is_other_data(a.data, b.data) for (_, a), (_, b) in combinations(competing, 2)):
        return None
    index, top = max(competing, key=lambda item: column.direction * item[1].value)
    others = [cell for i, cell in competing if i != index]
    ahead = all(
        round(cell.value, column.digits) != round(top.value, column.digits) and is_beyond_noise(top.sample, cell.sample)
        for cell in others
    )
    return index if others and ahead else None


def _refuse_mixtures(records: Sequence[Record]) -> None:
    seen = set()
    for record in records:
        if record.identity in seen:
            raise InputError(f'two records of {"/".join(map(str, record.identity))}; pass each record once')
        seen.add(record.identity)
    suites = sorted({record.suite for record in records})
    if len(suites) > 1:
        raise InputError(f'records of several suites in one table: {", ".join(suites)}; choose one')
