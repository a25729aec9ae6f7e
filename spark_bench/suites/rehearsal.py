"""What the cells of a suite would refuse themselves, asked before the first of them runs."""

import json
import logging
from collections.abc import Iterable
from typing import Any

from spark_bench.errors import InputError
from spark_bench.places import shipped
from spark_bench.records.differences import keys_that_differ, of_another_run
from spark_bench.records.store import read
from spark_bench.runs import kind_of
from spark_bench.runs.recipe import OF_CLASSES
from spark_bench.suites.definition import CellSpec, Suite
from spark_bench.suites.plan import tuned_overrides


def check_cells(suite: Suite, specs: Iterable[CellSpec]) -> None:
    """Build the config of every cell as its run will, without data or weights.

    Raises:
        InputError: naming suite, cell and key.
    """
    recipes = _Recipes(suite)
    for spec in specs:
        recipes.of(spec, spec.overrides)


def check_records(suite: Suite, specs: Iterable[CellSpec], results: str) -> None:
    """See that the records of cells are of the recipes that the suite states, as these cells will not run again.

    The data, and weights that no cell makes, are looked at by runs alone.

    Raises:
        InputError: naming a record, and what differs.
    """
    recipes = _Recipes(suite)
    for spec in specs:
        path = spec.record_path(suite.name, results)
        record = read(path)
        recorded = record.recipe
        start = spec.needs and spec.needs.record_path(suite.name, results)
        if start and start.is_file() and (record.weights or {}).get('config_hash') != read(start).config_hash:
            raise of_another_run(path, [f'it did not start from what {start} tells of'])
        if recorded is None or not all(trial.record_path(suite.name, results).is_file() for trial in spec.trials):
            continue
        stated = recipes.of(spec, tuned_overrides(spec, suite, results))
        other = keys_that_differ(recorded, stated, apart=OF_CLASSES)
        if other:
            raise of_another_run(path, other)


class _Recipes:
    """The recipes that a suite states; cells that differ in their seeds alone have one."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self._known: dict[tuple[str, str, str, str], dict[str, Any]] = {}

    def of(self, spec: CellSpec, overrides: dict[str, Any]) -> dict[str, Any]:
        method = {'method': spec.method} if spec.kind == 'pretrain' else {}
        # How batches are divided among processes is known where those are: in the run.
        chosen = {**spec.options, **method, 'accumulate': None}
        what = spec.kind, spec.recipe, spec.arch, json.dumps([chosen, overrides], default=str)
        if what not in self._known:
            self._known[what] = self._build(spec, dict(overrides), chosen)
        return self._known[what]

    def _build(self, spec, overrides, chosen):
        kind = kind_of(spec.kind)
        logging.disable(logging.WARNING)  # what a run warns of, it tells then
        try:
            options = kind.Options(config=str(shipped(spec.recipe)), arch=spec.arch, overrides=overrides, **chosen)
            return kind.check_recipe(options)
        except InputError as error:
            told = str(error).replace('--cfg-options', 'overrides')  # as a suite calls them
            raise InputError(f'suite {self.suite.name}: {spec.name}: {told}') from error
        finally:
            logging.disable(logging.NOTSET)
