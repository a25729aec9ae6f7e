"""What the cells of a suite would refuse themselves, asked before the first of them runs."""

import json
import logging
from collections.abc import Iterable

from spark_bench.errors import InputError
from spark_bench.places import shipped
from spark_bench.runs import kind_of
from spark_bench.suites.definition import CellSpec, Suite


def check_cells(suite: Suite, specs: Iterable[CellSpec]) -> None:
    """Build the config of every cell as its run will, without data or weights.

    Raises:
        InputError: naming suite, cell and key.
    """
    known = set()
    for spec in specs:
        method = {'method': spec.method} if spec.kind == 'pretrain' else {}
        # How batches are divided among processes is known where those are: in the run.
        chosen = {**spec.options, **method, 'accumulate': None}
        what = spec.kind, spec.recipe, spec.arch, json.dumps([chosen, spec.overrides], default=str)
        if what in known:
            continue
        known.add(what)
        kind = kind_of(spec.kind)
        options = kind.Options(
            config=str(shipped(spec.recipe)), arch=spec.arch, overrides=dict(spec.overrides), **chosen
        )
        logging.disable(logging.WARNING)  # what a run warns of, it tells then
        try:
            kind.check_recipe(options)
        except InputError as error:
            told = str(error).replace('--cfg-options', 'overrides')  # as a suite calls them
            raise InputError(f'suite {suite.name}: {spec.name}: {told}') from error
        finally:
            logging.disable(logging.NOTSET)
