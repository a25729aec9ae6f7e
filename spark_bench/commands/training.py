"""What commands that run a recipe share: from their words to the options of a run, and to the lines they end with."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from spark_bench.commands.parsing import Namespace
from spark_bench.places import shipped

if TYPE_CHECKING:
    from spark_bench.records.schema import Record
    from spark_bench.runs.options import AnyOptions


def train(args: Namespace, task: str) -> int:
    """Body of a command that trains; exit status."""
    from spark_bench.runs import kind_of
    from spark_bench.runs.run import run

    kind = kind_of(task)
    show(run(kind, run_options(args, kind.Options)), args.results)
    return 0


def run_options(args: Namespace, options: type[AnyOptions], **own: object) -> AnyOptions:
    """The options of a run: those words of the command that have their names, and ``own``."""
    config, overrides = args.config, dict(args.cfg_options)
    if config is None or not os.path.isfile(config) and shipped(config).is_file():
        # From the current folder, or else from where the recipes are installed.
        config = str(shipped(config or args.default_config))
    if getattr(args, 'epochs', None) is not None:
        overrides['train_cfg.max_epochs'] = args.epochs
    given = {field.name: getattr(args, field.name, None) for field in fields(options)}
    given |= {'config': config, 'overrides': overrides, **own}
    return options(**{name: value for name, value in given.items() if value is not None})


def show(record: Record, results: str) -> None:
    """Print what was measured and where the record is; of processes that train together, the first alone does."""
    from spark_bench.records.schema import record_path

    if is_first():
        print(
            f'{record.task} {record.arch} {record.method}: {as_line(record.metrics)}\n'
            f'record: {record_path(results, *record.identity)}'
        )


def is_first() -> bool:
    """Whether this process is the first of those that a launcher started together."""
    return int(os.environ.get('RANK', 0)) == 0


def as_line(metrics: Mapping[str, float | None]) -> str:
    """The metrics in a line; recall and sizes are in the files."""
    from spark_bench.tables.text import figure_text

    metrics = {name: value for name, value in metrics.items() if not re.search(r'_ar|_(small|medium|large)$', name)}
    return ', '.join(f'{name} {figure_text(value)}' for name, value in metrics.items())
