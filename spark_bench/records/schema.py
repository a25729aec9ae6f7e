"""What a record is: the result of one run, and its place among the others."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spark_bench.records.json_schema import LARGEST, OPTIONAL, PERCENT_PATTERN, SCHEMA_VERSION, check


@dataclass(frozen=True)
class Record:
    """The result of one run. Its path under the results folder is its identity; it is never edited.

    Metrics and curve values are plain floats or None: anything not finite, or beyond LARGEST, becomes None on
    construction, as it says no more than that a run diverged, and so does COCOeval's -1 (-100 in percent), by
    which it says that no object of that size exists.
    """

    origin: str  # 'measured' here, or 'published' elsewhere
    suite: str  # the table that the run belongs to
    task: str  # one of TASKS, as it stands or with a variant: 'detection', 'detection_2x', 'classification_384'
    arch: str  # backbone, by timm's name
    method: str  # 'scratch', or the pretraining: 'spark', 'no_sparse', ...
    seed: int  # of the run; 0 for a published figure
    metrics: Mapping[str, float | None]  # name -> value; accuracies and AP in percent; None: no number
    curves: Mapping[str, list] = field(default_factory=dict)  # name -> [[step, value], ...], steps as logged
    config_hash: str | None = None  # hexadecimal hash of this very run: resolved config, seed, data, weights
    config: str | None = None  # path of the resolved config
    weights: Mapping[str, Any] | None = None  # what the run started from: path, sha256, config_hash, key_prefix
    dataset: Mapping[str, Any] | None = None  # name, sha256, root, train_images, val_images, annotations
    environment: Mapping[str, Any] | None = None  # as collect_environment() gives it
    started_at: str | None = None  # ISO 8601, UTC
    wall_time_s: float | None = None  # seconds from start to record
    setting: Mapping[str, Any] | None = None  # pretrain_epochs, finetune_epochs, resolution, schedule: text or number
    artifacts: Mapping[str, str] = field(default_factory=dict)  # name -> path of a file the run left behind
    setup_hash: str | None = None  # measured only: that hash without seeds, which the runs of one mean share
    recipe: Mapping[str, Any] | None = None  # measured only: what was computed, as the config hash has it
    source: str | None = None  # published only: where the figure was read
    verified: bool | None = None  # published only: whether it was read in that source
    schema_version: int = SCHEMA_VERSION  # of this format

    def __post_init__(self) -> None:
        object.__setattr__(self, 'metrics', {k: _metric(k, v) for k, v in self.metrics.items()})
        curves = {k: _curve(v) for k, v in self.curves.items()}
        object.__setattr__(self, 'curves', curves)

    @property
    def kind(self) -> str:
        """The task without its variant: 'detection' for 'detection_2x'."""
        return self.task.partition('_')[0]

    @property
    def identity(self) -> tuple[str, str, str, str, str, int]:
        """(origin, suite, task, arch, method, seed): the parts of the record's path."""
        return self.origin, self.suite, self.task, self.arch, self.method, self.seed

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """(origin, task, arch, method): what its seeds share in the table of its suite."""
        return self.origin, self.task, self.arch, self.method

    @property
    def inputs(self) -> tuple[str | None, str | None, str | None]:
        """(config hash, config hash of the pretraining, data hash): equal for repetitions of one run."""
        weights, dataset = self.weights or {}, self.dataset or {}
        return self.config_hash, weights.get('config_hash'), dataset.get('sha256')

    @property
    def data(self) -> tuple[str | None, float | None]:
        """(data hash, share of the labels that were learned from), each None where the record does not say."""
        recipe = self.recipe
        if recipe is None:
            return self.inputs[2], None
        drawn = recipe.get('labels') or recipe.get('train_dataloader', {}).get('dataset') or {}  # of a probe, or not
        share = drawn.get('fraction')
        return self.inputs[2], 1.0 if share is None else share

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values; those of OPTIONAL only where they are set."""
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if v is not None or k not in OPTIONAL}


def is_other_data(a: tuple[str | None, float | None], b: tuple[str | None, float | None]) -> bool:
    """Whether two ``Record.data`` are known to be of other data, or of other shares of it."""
    return any(None not in pair and pair[0] != pair[1] for pair in zip(a, b, strict=True))


def record_path(results: str | Path, origin: str, suite: str, task: str, arch: str, method: str, seed: int) -> Path:
    """``<results>/<origin>/<suite>/<task>/<arch>/<method>/<seed>.json``.

    Raises:
        InputError: if a part is not fit to be one part of a path.
    """
    identity = {'origin': origin, 'suite': suite, 'task': task, 'arch': arch, 'method': method, 'seed': seed}
    check(identity, tuple(identity))
    return Path(results, origin, suite, task, arch, method, f'{seed}.json')


def _metric(name: str, value: Any) -> Any:
    value = _finite(value)
    return None if value in (-1, -100) and re.match(PERCENT_PATTERN, name) else value


def _curve(points: Sequence[Any]) -> list:
    if set(map(type, points)) == {list} and set(map(len, points)) == {2}:
        _, values = zip(*points, strict=True)
        # A sum is finite only if every value is.
        if set(map(type, values)) == {float} and math.isfinite(sum(values)) and max(map(abs, values)) <= LARGEST:
            return list(points)  # as files have it: nothing to do for any point
    return [[*point[:1], *map(_finite, point[1:])] for point in points]


def _finite(value: Any) -> Any:
    """``value`` as a float, None if it is not finite or beyond LARGEST; the schema refuses what is no number."""
    if value is None or isinstance(value, (bool, str, list, tuple, dict)):
        return value
    try:
        value = float(value)
    except OverflowError:  # an integer that no float can hold
        return None
    return value if abs(value) <= LARGEST else None  # which NaN is not
