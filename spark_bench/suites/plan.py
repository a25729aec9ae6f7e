"""From the cells of a suite to runs: which ones, with which data and weights, and what they will cost."""

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from spark_bench.configs import read_config
from spark_bench.errors import InputError
from spark_bench.places import default_work_dir, shipped
from spark_bench.records.store import read
from spark_bench.suites.checks import EMBEDDED
from spark_bench.suites.definition import CellSpec, Suite
from spark_bench.suites.runner import SuiteRun
from spark_bench.suites.status import encoder_of
from spark_bench.tables.parts import Column


@dataclass(frozen=True)
class Places:
    """Where a suite reads and writes.

    Attributes:
        data: from name of a data set to its folder or file.
        work_dir: folder of the suite.
        results: root of the records.
        cache_dir: of the embedded data set and published weights.
    """

    data: dict[str, str]
    work_dir: str
    results: str
    cache_dir: str | None = None

    def work_dir_of(self, spec: CellSpec) -> Path:
        """Folder of one cell."""
        root = Path(self.work_dir)
        return default_work_dir(root.parent, root.name, spec.task, spec.arch, spec.method, spec.seed)


def parse_data(suite: Suite, given: Iterable[str]) -> dict[str, str]:
    """From ``NAME=DIR`` words (or one plain ``DIR``, where the suite has one data set) to a dict.

    Raises:
        InputError: naming the word, or the data set that is missing.
    """
    found: dict[str, str] = {}
    for word in given:
        name, equals, place = word.partition('=')
        if not equals and len(suite.data) == 1:
            name, place = next(iter(suite.data)), word
        if name not in suite.data or not place:
            raise InputError(
                f"--data-root {word}: give NAME=DIR with one of the suite's data sets "
                f'({", ".join(suite.data) or "it has none"})'
            )
        if found.setdefault(name, place) != place:
            raise InputError(f'--data-root names {name} twice, {found[name]} and {place}: give it once')
    return found


def select(
    suite: Suite,
    specs: Sequence[CellSpec],
    only: Sequence[str] = (),
    limit: int | None = None,
    finished: Callable[[CellSpec], bool] = lambda spec: False,
) -> list[CellSpec]:
    """The cells to run: those that match, and the pretrainings that they start from.

    Args:
        suite: for the error.
        specs: to choose from.
        only: patterns (``detection/*``) of names; none selects all.
        limit: run at most so many; finished ones do not count.
        finished: tells whether a cell has its record.

    Raises:
        InputError: for a pattern that matches nothing.
    """
    if not specs:
        raise InputError(
            f'the suite {suite.name} has no cell but pretrainings, and --published leaves these out: leave it'
        )
    wanted = set()
    for pattern in only or ['*']:
        names = fnmatch.filter([spec.name for spec in specs], pattern)
        if not names:
            raise InputError(
                f'--only {pattern}: no cell of the suite {suite.name} matches; such as {specs[0].name} are its names'
            )
        wanted.update(names)
    for spec in reversed(specs):  # what a cell waits for stands before it
        if spec.name in wanted:
            wanted |= {other.name for other in spec.waits_for}
    chosen = [spec for spec in specs if spec.name in wanted]
    if limit is None:
        return chosen
    beyond = [spec.name for spec in chosen if not finished(spec)][limit:]
    return [spec for spec in chosen if spec.name not in beyond]


def use_published(specs: Iterable[CellSpec]) -> list[CellSpec]:
    """The cells with published pretrained weights in place of pretraining, where the index has them."""
    from spark_bench.checkpoints.published import read_index

    known = {(entry['name'], entry['arch']) for entry in read_index()}
    started = [
        replace(spec, start=spec.start.replace('pretrain', 'published', 1), needs=None)
        if spec.start.startswith('pretrain') and (_published_name(spec), spec.arch) in known
        else spec
        for spec in specs
    ]
    needed = {spec.needs.name for spec in started if spec.needs is not None}
    return [spec for spec in started if spec.kind != 'pretrain' or spec.name in needed]


def build_cells(suite: Suite, specs: Sequence[CellSpec], places: Places, download: bool = False) -> list[SuiteRun]:
    """The runs of the chosen cells, in the order to start them.

    Raises:
        InputError: for a data set without a place, or weights that are not there.
    """
    places = with_embedded(specs, places)
    runs: dict[str, SuiteRun] = {}
    for spec in specs:
        if spec.data not in places.data:
            raise InputError(
                f'the suite {suite.name} needs data {spec.data!r} ({suite.data[spec.data]}): give '
                f'--data-root {spec.data}=DIR'
            )
        needs = runs.get(spec.needs.name) if spec.needs is not None else None
        options = dict(
            config=str(shipped(spec.recipe)),
            suite=suite.name,
            task=spec.task,
            method=spec.method,
            arch=spec.arch,
            data_root=places.data[spec.data],
            work_dir=str(places.work_dir_of(spec)),
            results=str(places.results),
            seed=spec.seed,
            overrides=dict(spec.overrides),
            **spec.options,
        )
        if spec.kind != 'pretrain':
            options['weights'] = _weights(spec, places, download)
        run = SuiteRun(spec.name, spec.kind, options, spec.weight or 1.0, needs)
        if spec.trials:
            run.trials = tuple(runs[trial.name] for trial in spec.trials if trial.name in runs)
            run.prepare = partial(take_best, spec, suite, places, run)
        runs[spec.name] = run
    return list(runs.values())


def take_best(spec: CellSpec, suite: Suite, places: Places, run: SuiteRun) -> None:
    """Give the run of a tuned cell the overrides of its best trial, see :func:`tuned_overrides`."""
    run.options['overrides'] = tuned_overrides(spec, suite, places.results)


def tuned_overrides(spec: CellSpec, suite: Suite, results: str) -> dict[str, Any]:
    """The overrides of a cell: those of its best trial, the first of equals, below its own.

    Raises:
        InputError: naming a trial without a record, or without the metric.
    """
    if spec.tune is None:
        return dict(spec.overrides)
    figures, metric = [], spec.tune['metric']
    for trial in spec.trials:
        path = trial.record_path(suite.name, results)
        figure = read(path).metrics.get(metric)
        if figure is None:
            raise InputError(f'{path} has no {metric}, by which {spec.name} is tuned: name another metric in tune')
        figures.append(figure)
    choose = max if Column(spec.task, metric, metric).direction > 0 else min
    best = spec.trials[figures.index(choose(figures))]
    return {**best.overrides, **spec.overrides}


def with_embedded(specs: Iterable[CellSpec], places: Places) -> Places:
    """The places, with those of the embedded data set that the cells name; it is generated where it is not there."""
    names = {spec.data for spec in specs if spec.data.partition(':')[0] in EMBEDDED}
    found: dict[str, str] = {}
    for size in {name.partition(':')[0] for name in names}:
        from spark_bench.data import embedded

        parts = embedded.prepare(EMBEDDED[size], cache_dir=places.cache_dir)
        found |= {name: str(getattr(parts, name.partition(':')[2])) for name in names if name.startswith(f'{size}:')}
    return replace(places, data={**places.data, **found})


def _weights(spec, places, download):
    """Path of the weights that a cell starts from, or ``scratch``."""
    if spec.needs is not None:
        return str(encoder_of(spec.needs, places))
    if spec.start == 'none':
        return 'scratch'
    from spark_bench.checkpoints.published import find_published

    name = _published_name(spec)
    if spec.start == 'recipe':
        cfg = read_config(shipped(spec.recipe), f'{spec.name}: the recipe', import_custom_modules=False)
        name = cfg.get('init') or 'scratch'
    return name if name == 'scratch' else str(find_published(name, spec.arch, places.cache_dir, download))


def _published_name(spec):
    """The method, and of a pretraining of a name of its own what follows: ``spark_384`` of ``pretrain_384``."""
    return spec.method + ''.join(spec.start.partition('_')[1:])


def fitting_processes(cells: Iterable[SuiteRun], most: int, per_node: int | None = None) -> int:
    """The most processes, up to ``most``, that divide the global batch of every cell and fill whole nodes."""
    batches = {_global_batch(cell) for cell in cells} if most > 1 else set()
    return next(
        number
        for number in range(most, 0, -1)
        if all(batch % number == 0 for batch in batches)
        and (per_node is None or number <= per_node or number % per_node == 0)
    )


def _global_batch(cell):
    cfg = read_config(cell.options['config'], f'{cell.name}: the recipe', import_custom_modules=False)
    # One of mmdet's own states it so.
    stated = cfg.get('global_batch', (cfg.get('auto_scale_lr') or {}).get('base_batch_size'))
    batch = cell.options['overrides'].get('global_batch', stated)
    if not isinstance(batch, int) or batch < 1:
        raise InputError(f'{cell.name}: its recipe states no global_batch: add it to the overrides of the cells')
    return batch


def demand_data(places: Places) -> None:
    """See that the data sets are there, before any process starts.

    Raises:
        InputError: naming the one that is not.
    """
    for name, place in places.data.items():
        if not Path(place).exists():
            raise InputError(f'--data-root {name}={place}: there is no such file or folder')
