"""What a record is: the result of one run, as a dataclass and as the JSON Schema that guards the files."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spark_bench.errors import InputError
from spark_bench.places import NAME_PATTERN
from spark_bench.records.quick_check import Check, compile_check

__all__ = [
    'LARGEST',
    'OPTIONAL',
    'ORIGINS',
    'SCHEMA_VERSION',
    'TASKS',
    'Record',
    'check',
    'follow_schema',
    'json_schema',
    'raise_first',
    'record_path',
]

SCHEMA_VERSION = 1
ORIGINS = ('measured', 'published')
LARGEST = 1e100  # of any figure: sums and squares of such are finite too
OPTIONAL = ('setup_hash', 'recipe', 'setting', 'source', 'verified')  # keys that a file may lack
# Kinds of task; a variant may follow after an underscore, as in 'detection_2x'.
TASKS = ('pretrain', 'classification', 'detection', 'linear', 'knn')

TASK_PATTERN = rf'^({"|".join(TASKS)})(_[a-z0-9]+)?$(?!\n)'
# A source stands in tables: no line breaks, no commands to a terminal, nothing that turns the line round, no
# halves of surrogate pairs.
LINE_PATTERN = r'^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+$(?!\n)'
PERCENT_PATTERN = r'^(top[0-9]+(_.*)?|(box|mask)_a[pr].*)$'


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

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values; those of OPTIONAL only where they are set."""
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if v is not None or k not in OPTIONAL}

    @classmethod
    def from_dict(cls, values: Any) -> 'Record':
        """The record that `values`, parsed JSON, holds.

        Raises InputError, naming the offending key, if they do not follow the schema.
        """
        check(values)
        return cls(**values)


def record_path(results: str | Path, origin: str, suite: str, task: str, arch: str, method: str, seed: int) -> Path:
    """`<results>/<origin>/<suite>/<task>/<arch>/<method>/<seed>.json`.

    Raises InputError if a part is not fit to be one part of a path.
    """
    identity = {'origin': origin, 'suite': suite, 'task': task, 'arch': arch, 'method': method, 'seed': seed}
    _raise_first(tuple(identity), identity)
    return Path(results, origin, suite, task, arch, method, f'{seed}.json')


def check(values: Any) -> None:
    """Raise InputError with one line that names the first offending key if `values` are not a record."""
    _raise_first((), values)


def follow_schema(values: Sequence[Any]) -> bool:
    """Whether all of `values` are surely records: quick for thousands. If False, `check` tells of each."""
    return _quick_check(())(values)


def _raise_first(keys: tuple[str, ...], values: Any) -> None:
    if not _quick_check(keys)([values]):
        raise_first(_validator(keys), values)


def raise_first(validator: Any, values: Any) -> None:
    """Raise InputError with one line on the deepest complaint of a jsonschema validator, if it has any."""
    # The deepest is the most useful one; path and message only make the choice repeatable.
    errors = sorted(validator.iter_errors(values), key=lambda e: (-len(e.absolute_path), e.json_path, e.message))
    if not errors:
        return
    error = errors[0]
    key = '.'.join(str(part) for part in error.absolute_path)
    message = ' '.join(_explain(error).split())
    if len(message) > 200:
        message = f'{message[:120]} ... {message[-70:]}'
    if not key.isprintable():  # a key may be any string, also one with line breaks
        key = ascii(key)[1:-1]
    raise InputError(f'key "{key}": {message}' if key else message)


def _explain(error: Any) -> str:
    if error.validator == 'pattern' and error.validator_value == NAME_PATTERN:
        return f'{error.instance!r} is no name; use letters, digits, ".", "_", "-", without ".." or leading "."'
    if error.validator == 'pattern' and error.validator_value == TASK_PATTERN:
        return f'{error.instance!r} is no task; use {", ".join(TASKS)}, or one with a variant such as detection_2x'
    if error.validator == 'pattern' and error.validator_value == LINE_PATTERN:
        return f'{error.instance!a} is no line of printable text'
    if error.validator == 'not':
        return 'may only be null for a published figure'
    if error.validator is None:  # a schema that is `false` has no keyword to name
        return 'is for published figures only'
    return error.message


@functools.cache
def _validator(keys: tuple[str, ...]) -> Any:
    """A validator of the named keys alone, or of whole records for no keys."""
    import jsonschema  # 0.1 s that `--help` should not pay

    return jsonschema.Draft202012Validator(_schema_of(keys))


@functools.cache
def _quick_check(keys: tuple[str, ...]) -> Check:
    return compile_check(_schema_of(keys))


def _schema_of(keys: tuple[str, ...]) -> dict[str, Any]:
    schema = json_schema()
    if keys:
        schema = {'type': 'object', 'properties': {k: schema['properties'][k] for k in keys}}
    return schema


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a record file.

    A measured record states everything needed to trace it; a published one must name its source, and may
    leave unknown what only its authors know.
    """
    name = {'type': 'string', 'pattern': NAME_PATTERN, 'maxLength': 100}
    text = {'type': 'string', 'minLength': 1}
    sha = {'type': 'string', 'pattern': '^[0-9a-f]{6,128}$'}
    count = {'type': 'integer', 'minimum': 0, 'maximum': 2**64 - 1}
    amount = {'type': 'number', 'minimum': 0, 'maximum': 1e10}
    number = {'type': 'number', 'minimum': -LARGEST, 'maximum': LARGEST}
    point = {
        'type': 'array',
        'prefixItems': [number, _or_null(number)],
        'minItems': 2,
        'maxItems': 2,
    }
    properties = {
        'schema_version': {'const': SCHEMA_VERSION},
        'origin': {'enum': list(ORIGINS)},
        'suite': name,
        'task': {'type': 'string', 'pattern': TASK_PATTERN},
        'arch': name,
        'method': name,
        'seed': count,
        'metrics': {
            'type': 'object',
            'propertyNames': name,
            'additionalProperties': _or_null(number),
            'patternProperties': {PERCENT_PATTERN: _or_null({'type': 'number', 'minimum': 0, 'maximum': 100})},
        },
        'curves': {
            'type': 'object',
            'propertyNames': name,
            'additionalProperties': {'type': 'array', 'items': point},
        },
        'config_hash': _or_null(sha),
        'setup_hash': sha,
        'recipe': {'type': 'object'},
        'config': _or_null(text),
        'weights': _or_null(_closed(
            {'path': text, 'sha256': sha, 'config_hash': _or_null(sha), 'key_prefix': text}, optional=('key_prefix',))),
        'dataset': _or_null(
            _closed(
                {
                    'name': text,
                    'sha256': _or_null(sha),
                    'root': text,
                    'train_images': count,
                    'val_images': count,
                    'annotations': _or_null(text),
                },
                optional=('annotations',),
            )
        ),
        'environment': _or_null(
            _closed(
                {
                    'git_revision': _or_null(text),
                    'git_dirty': _or_null({'type': 'boolean'}),
                    'python': text,
                    'platform': text,
                    'cpu': text,
                    'cores': count,
                    'threads': count,
                    'memory_gb': amount,
                    'gpu': _or_null(text),
                    'packages': {'type': 'object', 'additionalProperties': text},
                }
            )
        ),
        'started_at': _or_null({'type': 'string', 'pattern': r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$'}),
        'wall_time_s': _or_null(amount),
        'setting': {
            'type': 'object',
            'propertyNames': name,
            'additionalProperties': {**number, 'type': ['string', 'number', 'null']},
        },
        'artifacts': {'type': 'object', 'propertyNames': name, 'additionalProperties': text},
        'source': {'type': 'string', 'pattern': LINE_PATTERN},
        'verified': {'type': 'boolean'},
    }
    traced = ('config_hash', 'config', 'dataset', 'environment', 'started_at', 'wall_time_s')
    return {
        '$schema': 'https://json-schema.org/draft/2020-12/schema',
        **_closed(properties, optional=OPTIONAL),
        'if': {'properties': {'origin': {'const': 'measured'}}},
        'then': {
            'properties': {
                **{key: {'not': {'type': 'null'}} for key in traced},
                'source': False,
                'verified': False,
            }
        },
        'else': {'required': ['source', 'verified']},
    }


def _closed(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        'type': 'object',
        'properties': properties,
        'additionalProperties': False,
        'required': [key for key in properties if key not in optional],
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    # A list of types, not `anyOf`, keeps error messages about the value itself.
    return {**schema, 'type': [schema['type'], 'null']}


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
    """`value` as a float, None if it is not finite or beyond LARGEST; the schema refuses what is no number."""
    if value is None or isinstance(value, (bool, str, list, tuple, dict)):
        return value
    try:
        value = float(value)
    except OverflowError:  # an integer that no float can hold
        return None
    return value if abs(value) <= LARGEST else None  # which NaN is not
