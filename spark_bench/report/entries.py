"""What the report says of the records behind its tables: one entry a record."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_bench.records.json_schema import ORIGINS, TASKS
from spark_bench.records.schema import Record
from spark_bench.report.backbones import family_of
from spark_bench.report.costs import pretraining_of
from spark_bench.report.curves import Sparkline, sparkline
from spark_bench.tables.build import order_methods
from spark_bench.tables.parts import Column, Row
from spark_bench.tables.text import DAGGER, figure_text

LEADING_METRICS = ('top1', 'box_ap', 'mask_ap', 'loss')  # also in the line of a closed entry


@dataclass(frozen=True)
class Entry:
    """One record as the page shows it."""

    record: Record
    pretraining: Record | None  # that it started from, if its record is there
    software: int | None  # the number, from 1, of what it ran on
    curves: list[Sparkline]

    @property
    def dagger(self) -> str:
        """What follows each of its figures."""
        return DAGGER if self.record.verified is False else ''

    @property
    def headline(self) -> list[str]:
        """The parts of the line that stands for the closed entry, after its task."""
        record = self.record
        known = [name for name in LEADING_METRICS if record.metrics.get(name) is not None]
        return [
            record.arch,
            record.method,
            f'seed {record.seed}' if record.origin == 'measured' else 'published',
            *(f'{name} {figure_text(record.metrics[name])}{self.dagger}' for name in known),
            *([] if record.wall_time_s is None else [duration(record.wall_time_s)]),
        ]


def distinct_software(records: Sequence[Record]) -> dict[str, Mapping[str, Any]]:
    """The software and systems of records, each once, in order of appearance: many share one."""
    return {_software_of(record): record.environment for record in records if record.environment}


def _software_of(record: Record) -> str:
    return json.dumps([record.environment[key] for key in ('python', 'platform', 'packages')], sort_keys=True)


def group_entries(records: Sequence[Record], software: Sequence[str]) -> dict[str, list[list[Entry]]]:
    """The entries by backbone, small to large, and cell: by task, method and origin; the seeds of one in a list.

    ``software`` are the keys that ``distinct_software`` gives.
    """
    pretrainings = [record for record in records if record.kind == 'pretrain']
    rank = {method: i for i, method in enumerate(order_methods(r.method for r in records))}
    groups: dict[str, dict[tuple[int | str, ...], list[Entry]]] = {}
    for record in sorted(records, key=lambda r: (family_of(r.arch), r.seed)):
        key = (TASKS.index(record.kind), record.task, rank[record.method], ORIGINS.index(record.origin))
        curves = [sparkline(name, curve) for name, curve in record.curves.items()]
        number = software.index(_software_of(record)) + 1 if record.environment else None
        entry = Entry(record, pretraining_of(record, pretrainings), number, [curve for curve in curves if curve])
        groups.setdefault(record.arch, {}).setdefault(key, []).append(entry)
    return {arch: [cells[key] for key in sorted(cells)] for arch, cells in groups.items()}


def cell_target(row: Row, column: Column, cells: Mapping[tuple[str, str, str, str], Sequence[Record]]) -> str | None:
    """The address in the page of the records behind one cell of a table; None if there are none.

    ``cells`` are as ``group_by_cell`` gives them.
    """
    found = cells.get((row.origin, column.task, row.arch, row.method))
    if not found:
        return None
    return '#' + (record_id if len(found) == 1 else cell_id)(found[0])


def record_id(record: Record) -> str:
    """The identifier of a record's entry."""
    return '-'.join(['record', *map(str, record.identity)])


def cell_id(record: Record) -> str:
    """The identifier of what holds the entries of a record and of its other seeds."""
    return '-'.join(['cell', *map(str, record.identity[:-1])])


def duration(seconds: float) -> str:
    """``seconds`` for a person: '12 s', '3 min 5 s', '2 h 40 min', '250 h'."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f'{rest} s'
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f'{round(seconds / 3600)} h'
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'
