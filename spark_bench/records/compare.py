"""Two sets of records side by side, cell by cell."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spark_bench.errors import InputError
from spark_bench.records.differences import keys_that_differ
from spark_bench.records.json_schema import ORIGINS
from spark_bench.records.schema import Record
from spark_bench.records.store import paths_below, read_many


@dataclass(frozen=True)
class Pair:
    """The records of one cell in two sets, of which one may have none."""

    name: tuple[str, ...]  # task, backbone, method; before them origin and suite, where the sets hold several
    a: Sequence[Record]
    b: Sequence[Record]

    @property
    def configs(self) -> str:
        """'same' or 'other' for the configurations of the two, 'other seeds'; empty where one has none.

        Seeds are no configuration. Records of before they had a ``setup_hash`` tell only of their very run: where such
        have no seed in common, nothing but the seeds is known to differ.
        """
        hashes = [{record.config_hash for record in records} - {None} for records in (self.a, self.b)]
        if not all(hashes):
            return ''
        setups = [{record.setup_hash for record in records} for records in (self.a, self.b)]
        if None not in setups[0] | setups[1]:
            return 'same' if setups[0] == setups[1] else 'other'
        runs = [{record.seed: record.config_hash for record in records} for records in (self.a, self.b)]
        common = runs[0].keys() & runs[1].keys()
        if common:
            return 'same' if all(runs[0][seed] == runs[1][seed] for seed in common) else 'other'
        return 'same' if hashes[0] == hashes[1] else 'other seeds'

    @property
    def changes(self) -> list[str]:
        """In what other configurations differ: data, and values of their recipes, as far as the records keep them."""
        recipes = [
            next((record.recipe for record in records if record.recipe is not None), None)
            for records in (self.a, self.b)
        ]
        data = [{record.data[0] for record in records} - {None} for records in (self.a, self.b)]
        changes = ['other data'] if all(data) and data[0] != data[1] else []
        return changes + (keys_that_differ(*recipes) if self.configs == 'other' and None not in recipes else [])


def load_set(path: str | Path, curves: bool = True) -> list[Record]:
    """The records of a results folder, of any folder inside one, or of one file.

    Raises:
        InputError: if there is none, or if one is unsound.
    """
    path = Path(path)
    folders = [path / origin for origin in ORIGINS if os.path.isdir(path / origin)] or [path]
    paths = [str(path)] if os.path.isfile(path) else [file for folder in folders for file in paths_below(folder)]
    if not paths:
        raise InputError(f'no record in {path}: name a results folder, a folder inside one, or a record')
    return read_many(paths, curves)


def pair_up(a: Sequence[Record], b: Sequence[Record]) -> tuple[list[str], list[Pair]]:
    """What the parts of the pairs' names are, and a pair for each cell that either set has, in no order.

    Cells are matched by task, backbone and method. Origin and suite must match too, except where each set has only one:
    so can two suites be compared, or what was measured with what was published.
    """
    parts = [
        part
        for part in ('origin', 'suite')
        if any(len({getattr(record, part) for record in records}) > 1 for records in (a, b))
    ]
    cells: dict[tuple[str, ...], tuple[list[Record], list[Record]]] = {}
    for side, records in enumerate((a, b)):
        for record in records:
            name = (*(getattr(record, part) for part in parts), record.task, record.arch, record.method)
            cells.setdefault(name, ([], []))[side].append(record)
    return [*parts, 'task', 'backbone', 'method'], [Pair(name, *sides) for name, sides in cells.items()]
