"""The part of the report that shows the records behind its tables, one entry a record."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from spark_bench.records.curves import sparkline
from spark_bench.records.scaling import order_archs, pretraining_of
from spark_bench.records.schema import ORIGINS, TASKS, Record
from spark_bench.records.table import Column, Row, order_methods

__all__ = ['cell_target', 'duration', 'records_part']

LEADING_METRICS = ('top1', 'box_ap', 'mask_ap', 'loss')  # also in the line of a closed entry
VERIFIED = {True: '✓ read in this source', False: '† transcribed, not checked against this source: no claim'}


def cell_target(row: Row, column: Column, cells: Mapping[tuple[str, str, str, str], Sequence[Record]]) -> str | None:
    """The address in the page of the records behind one cell of a table; None if there are none.

    Args:
        cells: as `group_by_cell` gives them.
    """
    found = cells.get((row.origin, column.task, row.arch, row.method))
    if not found:
        return None
    return f'#{_record_id(found[0])}' if len(found) == 1 else f'#{_cell_id(found[0])}'


def records_part(records: Sequence[Record]) -> str:
    """All records by backbone, task and method, the seeds of one cell together, then what they ran on.

    Software and machine are the same for many records, so each kind is written once and linked.
    """
    environments = _Environments(records)
    pretrainings = [record for record in records if record.kind == 'pretrain']
    rank = {method: i for i, method in enumerate(order_methods(r.method for r in records))}
    parts = []
    for arch in order_archs([r.arch for r in records]):
        parts.append(f'<h3>{escape(arch)}</h3>')
        cells: dict[tuple, list[Record]] = {}
        for record in (r for r in records if r.arch == arch):
            kind = TASKS.index(record.task.partition('_')[0])
            key = (kind, record.task, rank[record.method], ORIGINS.index(record.origin))
            cells.setdefault(key, []).append(record)
        for key in sorted(cells):
            seeds = sorted(cells[key], key=lambda r: r.seed)
            entries = ''.join(_entry(record, pretrainings, environments) for record in seeds)
            parts.append(f'<div class="cell" id="{_cell_id(seeds[0])}">{entries}</div>')
    return ''.join(parts) + environments.part()


class _Environments:
    """The distinct software and systems of the records, numbered from 1 in order of appearance."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        for record in records:
            if record.environment:
                self.known.setdefault(self._key(record), dict(record.environment))

    @staticmethod
    def _key(record: Record) -> str:
        shared = ('python', 'platform', 'packages')
        return json.dumps({key: (record.environment or {}).get(key) for key in shared}, sort_keys=True)

    def link(self, record: Record) -> str:
        number = list(self.known).index(self._key(record)) + 1
        return f'<a href="#software-{number}">software {number}</a>'

    def part(self) -> str:
        entries = []
        for number, environment in enumerate(self.known.values(), 1):
            packages = ', '.join(f'{name} {version}' for name, version in environment.get('packages', {}).items())
            facts = {
                'system': f'{environment.get("platform")}, Python {environment.get("python")}',
                'packages': packages,
            }
            entries.append(
                f'<details><summary><b>software {number}</b> · Python {escape(str(environment.get("python")))}'
                f'</summary><dl id="software-{number}">{_facts(facts)}</dl></details>'
            )
        return f'<h3>Software</h3>{"".join(entries)}' if entries else ''


def _entry(record: Record, pretrainings: Sequence[Record], environments: _Environments) -> str:
    words = [escape(record.arch), escape(record.method)]
    words.append(f'seed {record.seed}' if record.origin == 'measured' else 'published')
    for name in LEADING_METRICS:
        if record.metrics.get(name) is not None:
            words.append(f'{name} {record.metrics[name]:.4g}{_dagger(record)}')
    if record.wall_time_s is not None:
        words.append(duration(record.wall_time_s))
    # The identifier is inside: browsers open a closed <details> for a link to its content.
    return (
        f'<details><summary><b>{escape(record.task)}</b> · {" · ".join(words)}</summary>'
        f'<dl id="{_record_id(record)}">{_facts(_told(record))}{_weights(record, pretrainings)}'
        f'{_environment(record, environments)}{_curves(record)}</dl></details>'
    )


def _told(record: Record) -> dict[str, str | None]:
    dagger = _dagger(record)
    metrics = ', '.join(f'{k} {"–" if v is None else f"{v:.4g}{dagger}"}' for k, v in record.metrics.items())
    dataset = record.dataset or {}
    data = [
        dataset.get('name'),
        f'{dataset.get("train_images")} training and {dataset.get("val_images")} validation pictures',
        dataset.get('sha256'),
    ]
    setting = ', '.join(f'{k.replace("_", " ")} {v}' for k, v in (record.setting or {}).items() if v is not None)
    return {
        'record': '/'.join(map(str, record.identity)) + '.json',
        'metrics': metrics,
        'setting': setting,
        'source': record.source and f'{record.source} ({VERIFIED[bool(record.verified)]})',
        'config': record.config,
        'config hash': record.config_hash,
        'data': ' · '.join(filter(None, data)) if dataset else None,
        'started': record.started_at,
        'wall time': None if record.wall_time_s is None else f'{record.wall_time_s:.1f} s',
    }


def _dagger(record: Record) -> str:
    return '†' if record.verified is False else ''


def _weights(record: Record, pretrainings: Sequence[Record]) -> str:
    if not record.weights:
        return ''
    origin = pretraining_of(record, pretrainings)
    link = f' · <a href="#{_record_id(origin)}">its pretraining</a>' if origin else ''
    return f'<dt>started from</dt><dd>{escape(record.weights["path"])} · {escape(record.weights["sha256"])}{link}</dd>'


def _environment(record: Record, environments: _Environments) -> str:
    environment = record.environment
    if not environment:
        return ''
    revision = environment.get('git_revision') or 'not a git checkout'
    if environment.get('git_dirty'):
        revision += ', with uncommitted changes'
    machine = [
        environment.get('gpu'),
        environment.get('cpu'),
        f'{environment.get("cores")} cores',
        f'{environment.get("threads")} threads',
        f'{environment.get("memory_gb")} GB of memory',
    ]
    hardware = ' · '.join(filter(None, machine))
    return (
        _facts({'git revision': revision, 'hardware': hardware})
        + f'<dt>packages</dt><dd>{environments.link(record)}</dd>'
    )


def _curves(record: Record) -> str:
    drawn = {name: sparkline(name, curve) for name, curve in record.curves.items()}
    return ''.join(
        f'<dt>curve of {escape(name)}</dt><dd>{svg}<span class="ends">{_ends(record.curves[name])}</span></dd>'
        for name, svg in drawn.items()
        if svg
    )


def _ends(curve: Sequence[Sequence[float | None]]) -> str:
    known = [point for point in curve if point[1] is not None]
    (first, start), (last, end) = known[0], known[-1]
    return f'{start:.4g} at {first:g}, {end:.4g} at {last:g}'


def _facts(facts: dict[str, str | None]) -> str:
    return ''.join(f'<dt>{name}</dt><dd>{escape(str(value))}</dd>' for name, value in facts.items() if value)


def _record_id(record: Record) -> str:
    return '-'.join(['record', *map(str, record.identity)])


def _cell_id(record: Record) -> str:
    return '-'.join(['cell', *map(str, record.identity[:-1])])


def duration(seconds: float) -> str:
    """`seconds` for a person: '12 s', '3 min 5 s', '2 h 40 min', '250 h'."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f'{rest} s'
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f'{round(seconds / 3600)} h'
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'
