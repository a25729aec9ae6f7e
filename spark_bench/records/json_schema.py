"""What a record file may hold, as a JSON Schema (draft 2020-12), and what is said of one that holds anything else."""

import functools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from spark_bench.errors import InputError
from spark_bench.places import NAME_PATTERN
from spark_bench.records.quick_check import Check, compile_check

if TYPE_CHECKING:
    import jsonschema

SCHEMA_VERSION = 1
ORIGINS = ('measured', 'published')
LARGEST = 1e100  # of any figure: sums and squares of such are finite too
OPTIONAL = ('setup_hash', 'recipe', 'setting', 'source', 'verified')  # keys that a file may lack
# Kinds of task; a variant may follow after an underscore, as in 'detection_2x'.
TASKS = ('pretrain', 'classification', 'detection', 'linear', 'knn', 'profile')

TASK_PATTERN = rf'^({"|".join(TASKS)})(_[a-z0-9]+)?$(?!\n)'
# A source stands in tables: no line breaks, no commands to a terminal, nothing that turns the line round, no
# halves of surrogate pairs.
LINE_PATTERN = r'^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+$(?!\n)'
PERCENT_PATTERN = r'^(top[0-9]+(_.*)?|(box|mask)_a[pr].*)$'

Schema = dict[str, Any]


def _or_null(schema: Schema) -> Schema:
    # A list of types, not `anyOf`, keeps error messages about the value itself.
    return {**schema, 'type': [schema['type'], 'null']}


def _closed(properties: Schema, optional: Collection[str] = ()) -> Schema:
    return {
        'type': 'object',
        'properties': properties,
        'additionalProperties': False,
        'required': [key for key in properties if key not in optional],
    }


_NAME = {'type': 'string', 'pattern': NAME_PATTERN, 'maxLength': 100}
_TEXT = {'type': 'string', 'minLength': 1}
_SHA = {'type': 'string', 'pattern': '^[0-9a-f]{6,128}$'}
_FLAG = {'type': 'boolean'}
_COUNT = {'type': 'integer', 'minimum': 0, 'maximum': 2**64 - 1}
_AMOUNT = {'type': 'number', 'minimum': 0, 'maximum': 1e10}
_NUMBER = {'type': 'number', 'minimum': -LARGEST, 'maximum': LARGEST}
_PERCENT = {'type': 'number', 'minimum': 0, 'maximum': 100}
_TIME = {'type': 'string', 'pattern': r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$'}

_METRICS = {
    'type': 'object',
    'propertyNames': _NAME,
    'additionalProperties': _or_null(_NUMBER),
    'patternProperties': {PERCENT_PATTERN: _or_null(_PERCENT)},
}
_POINT = {'type': 'array', 'prefixItems': [_NUMBER, _or_null(_NUMBER)], 'minItems': 2, 'maxItems': 2}
_CURVES = {'type': 'object', 'propertyNames': _NAME, 'additionalProperties': {'type': 'array', 'items': _POINT}}
_WEIGHTS = _closed(
    {'path': _TEXT, 'sha256': _SHA, 'config_hash': _or_null(_SHA), 'key_prefix': _TEXT}, optional=['key_prefix']
)
_DATASET = _closed(
    {
        'name': _TEXT,
        'sha256': _or_null(_SHA),
        'root': _TEXT,
        'train_images': _COUNT,
        'val_images': _COUNT,
        'annotations': _or_null(_TEXT),
    },
    optional=['annotations'],
)
_ENVIRONMENT = _closed(
    {
        'git_revision': _or_null(_TEXT),
        'git_dirty': _or_null(_FLAG),
        'python': _TEXT,
        'platform': _TEXT,
        'cpu': _TEXT,
        'cores': _COUNT,
        'threads': _COUNT,
        'memory_gb': _AMOUNT,
        'gpu': _or_null(_TEXT),
        'packages': {'type': 'object', 'additionalProperties': _TEXT},
    }
)
_SETTING = {
    'type': 'object',
    'propertyNames': _NAME,
    'additionalProperties': {**_NUMBER, 'type': ['string', 'number', 'null']},
}
_PROPERTIES = {
    'schema_version': {'const': SCHEMA_VERSION},
    'origin': {'enum': list(ORIGINS)},
    'suite': _NAME,
    'task': {'type': 'string', 'pattern': TASK_PATTERN},
    'arch': _NAME,
    'method': _NAME,
    'seed': _COUNT,
    'metrics': _METRICS,
    'curves': _CURVES,
    'config_hash': _or_null(_SHA),
    'setup_hash': _SHA,
    'recipe': {'type': 'object'},
    'config': _or_null(_TEXT),
    'weights': _or_null(_WEIGHTS),
    'dataset': _or_null(_DATASET),
    'environment': _or_null(_ENVIRONMENT),
    'started_at': _or_null(_TIME),
    'wall_time_s': _or_null(_AMOUNT),
    'setting': _SETTING,
    'artifacts': {'type': 'object', 'propertyNames': _NAME, 'additionalProperties': _TEXT},
    'source': {'type': 'string', 'pattern': LINE_PATTERN},
    'verified': _FLAG,
}
_TRACED = ('config_hash', 'config', 'dataset', 'environment', 'started_at', 'wall_time_s')

# A measured record states everything needed to trace it; a published one must name its source, and may leave unknown
# what only its authors know.
RECORD_SCHEMA: Schema = {
    '$schema': 'https://json-schema.org/draft/2020-12/schema',
    **_closed(_PROPERTIES, OPTIONAL),
    'if': {'properties': {'origin': {'const': 'measured'}}},
    'then': {'properties': {**{key: {'not': {'type': 'null'}} for key in _TRACED}, 'source': False, 'verified': False}},
    'else': {'required': ['source', 'verified']},
}


def check(values: object, keys: tuple[str, ...] = ()) -> None:
    """See that ``values``, parsed JSON, are a record; or, with ``keys``, that these of theirs are as a record's.

    Raises:
        InputError: one line that names the first offending key.
    """
    if not _quick_check(keys)([values]):
        raise_first(_validator(keys), values)


def follow_schema(values: Sequence[object]) -> bool:
    """Whether all of ``values`` are surely records: quick for thousands. If False, ``check`` tells of each."""
    return _quick_check(())(values)


@functools.cache
def _validator(keys: tuple[str, ...]) -> 'jsonschema.Validator':
    """A validator of the named keys alone, or of whole records for no keys."""
    import jsonschema  # 0.1 s that `--help` should not pay

    return jsonschema.Draft202012Validator(_schema_of(keys))


@functools.cache
def _quick_check(keys: tuple[str, ...]) -> Check:
    return compile_check(_schema_of(keys))


def _schema_of(keys: tuple[str, ...]) -> dict[str, Any]:
    if not keys:
        return RECORD_SCHEMA
    return {'type': 'object', 'properties': {key: RECORD_SCHEMA['properties'][key] for key in keys}}


def raise_first(validator: 'jsonschema.Validator', values: object) -> None:
    """Raise InputError with one line on the deepest complaint of a validator, if it has any."""
    # The deepest is the most useful one; path and message only make the choice repeatable.
    errors = sorted(validator.iter_errors(values), key=lambda e: (-len(e.absolute_path), e.json_path, e.message))
    if not errors:
        return
    key = '.'.join(str(part) for part in errors[0].absolute_path)
    message = ' '.join(_explain(errors[0]).split())
    if len(message) > 200:
        message = f'{message[:120]} ... {message[-70:]}'
    if not key.isprintable():  # a key may be any string, also one with line breaks
        key = ascii(key)[1:-1]
    raise InputError(f'key "{key}": {message}' if key else message)


def _explain(error: 'jsonschema.ValidationError') -> str:
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
