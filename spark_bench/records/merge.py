"""Putting the records of several people into one folder, without losing any and without choosing between them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from spark_bench.records.schema import Record
from spark_bench.records.store import check_writable, find, is_repetition, write

INPUTS = ('config', 'weights', 'data')  # what Record.inputs are the hashes of


def merge(a: Sequence[Record], b: Sequence[Record], results: str | Path) -> int:
    """Write the records of both sets below ``results``; exit status 1 if any are in conflict, else 0.

    Records of one identity but of other configurations, weights or data are conflicts: each is named on standard
    error, and nothing is written at all. A run that was repeated stands once, as first found: in ``results``, then in
    A, then in B; repetitions with other figures are named.

    Raises:
        InputError: if a record in ``results`` is unsound, or if the folder cannot be written.
    """
    conflicts, repetitions, merged = _gather(a, b, results)
    for line in conflicts:
        print(f'spark-bench: conflict: {line}', file=sys.stderr)
    if conflicts:
        print(
            f'spark-bench: error: {len(conflicts)} in conflict, nothing was merged: of each pair delete one file, or '
            'repeat one run with another --seed',
            file=sys.stderr,
        )
        return 1
    for record in merged:
        check_writable(results, *record.identity, option='--merge')
    for line in repetitions:
        print(f'repeated: {line}', file=sys.stderr)
    for record in merged:
        write(record, results)
    print(f'merged: {len(merged)} records in {results}', file=sys.stderr)
    return 0


def _gather(a: Sequence[Record], b: Sequence[Record], results: str | Path) -> tuple[list[str], list[str], list[Record]]:
    """A line for each conflict and for each repetition with other figures, and the records that stand."""
    kept: dict[tuple[str | int, ...], tuple[str, Record]] = {}
    conflicts, repetitions = [], []
    for side, records in (('A', a), ('B', b)):
        for record in records:
            if record.identity not in kept:
                existing = find(results, *record.identity)
                kept[record.identity] = (side, record) if existing is None else (str(results), existing)
            holder, first = kept[record.identity]
            name = '/'.join(map(str, record.identity))
            if not is_repetition(record, first):
                conflicts.append(f'{name}: {_what_differs(first, record)} in {holder} and {side}')
            elif record.metrics != first.metrics:
                repetitions.append(f'{name}: {_figures(first, record)} in {holder} and {side}; kept: {holder}')
    return conflicts, repetitions, [record for _, record in kept.values()]


def _what_differs(first: Record, other: Record) -> str:
    if first.origin == 'published':
        return 'other figures or sources'
    differing = [name for name, x, y in zip(INPUTS, first.inputs, other.inputs, strict=True) if x != y]
    return f'other {" and ".join(differing)}'


def _figures(first: Record, other: Record) -> str:
    names = sorted({*first.metrics, *other.metrics})
    pairs = ((name, first.metrics.get(name), other.metrics.get(name)) for name in names)
    return ', '.join(f'{name} {x} and {y}' for name, x, y in pairs if x != y)
