"""What commands that run a recipe share: from their words to the options of a run, and to the lines they end with."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING

from spark_bench.commands.parsing import Namespace
from spark_bench.errors import InputError
from spark_bench.places import default_work_dir, shipped

if TYPE_CHECKING:
    from spark_bench.engine.runs import RunOptions
    from spark_bench.records.schema import Record


def train(args: Namespace, task: str, engine: ModuleType, part: str, **own: object) -> int:
    """Body of a command that trains; exit status.

    Args:
        args: with the options of ``add_run`` and ``add_speed``, and perhaps ``--epochs`` and those of ``add_weights``.
        task: of the record.
        engine: its ``run`` trains.
        part: of the embedded data set, where neither command nor config names data.
        own: options of the run that this command alone has.
    """
    from spark_bench.engine.runs import arch_of, load_config
    if getattr(args, 'epochs', None) is not None:
        args.cfg_options = [*args.cfg_options, ('train_cfg.max_epochs', args.epochs)]
    options = run_options(
        args, seed=args.seed, arch=args.arch, batch_size=args.batch_size, accumulate=args.accumulate, amp=args.amp,
        channels_last=args.channels_last, checkpoint_interval=args.checkpoint_interval, **own)
    config = load_config(options)
    if hasattr(args, 'weights'):
        options = replace(options, **start_of(args, config))
    data_root = args.data_root or data_of(config, args, part)
    work_dir = args.work_dir or default_work_dir(
        'work_dirs', args.suite, task, args.arch or arch_of(config, options.config), options.method, args.seed)
    show(engine.run(replace(options, data_root=data_root, work_dir=str(work_dir))), args.results)
    return 0


def run_options(args: Namespace, **own: object) -> RunOptions:
    """What commands that run a recipe have in common, and ``own``; the places are still to be filled in."""
    from spark_bench.engine.runs import RunOptions
    config = args.config
    if config is None or not os.path.isfile(config) and shipped(config).is_file():
        # From the current folder, or else from where the recipes are installed.
        config = str(shipped(config or args.default_config))
    return RunOptions(config=config, suite=args.suite, results=args.results, threads=args.threads, workers=args.workers,
                      launcher=args.launcher, overrides=dict(args.cfg_options),
                      **{'method': '', 'data_root': '', 'work_dir': '', **own})


def start_of(args: Namespace, config: Mapping) -> dict[str, str | None]:
    """The weights that a run starts from, and the method that its record names, as options of the run.

    Args:
        config: the recipe; an empty one where none is run.
    """
    from spark_bench.checkpoints.published import choose_weights
    weights, method = choose_weights(args.weights, config, args.arch, args.cache_dir, args.download)
    if args.key_prefix is not None and weights is None:
        raise InputError('--key-prefix chooses a network of a file: give that with --weights')
    return {'weights': weights, 'key_prefix': args.key_prefix, 'method': args.method or method or 'pretrained'}


def data_of(config: Mapping, args: Namespace, part: str) -> str:
    """Where a recipe looks for its data; that part of the embedded data set where it names no place."""
    if config.get('data_root'):
        return config['data_root']
    from spark_bench.data import embedded
    return str(getattr(embedded.prepare(cache_dir=args.cache_dir), part))


def show(record: Record, results: str) -> None:
    """Print what was measured and where the record is; of processes that train together, the first alone does."""
    from spark_bench.records.schema import record_path
    if is_first():
        print(f'{record.task} {record.arch} {record.method}: {as_line(record.metrics)}\n'
              f'record: {record_path(results, *record.identity)}')


def is_first() -> bool:
    """Whether this process is the first of those that a launcher started together."""
    return int(os.environ.get('RANK', 0)) == 0


def as_line(metrics: Mapping[str, float | None]) -> str:
    """The metrics in a line; recall and sizes are in the files."""
    metrics = {name: value for name, value in metrics.items() if not re.search(r'_ar|_(small|medium|large)$', name)}
    return ', '.join(f'{name} {"–" if value is None else f"{value:.4g}"}' for name, value in metrics.items())
