"""What is other in a run than in the one whose record is there: keys and values say more than two hashes."""

import json

from mmengine.config import Config

from spark_bench.engine.overrides import is_owned

_SHOWN = 3


def what_differs(record, recipe, select, data_sha256, weights):
    """A few words on what is other now than in a record of the same identity; empty where nothing is found.

    Args:
        record: :class:`~spark_bench.records.schema.Record`, whose config may be there still.
        recipe: what decides the numbers now, a dict.
        select: function from a whole config, as dict, to that.
        data_sha256, weights: of now, as the record has them.
    """
    found = []
    if (record.dataset or {}).get('sha256') != data_sha256:
        found.append('the data')
    before, after = ((start or {}).get('config_hash') or (start or {}).get('sha256') for start in (record.weights,
                                                                                                   weights))
    if before != after:
        found.append('the weights that it starts from')
    before, after = ((start or {}).get('key_prefix') for start in (record.weights, weights))
    if before != after:
        found.append(f'--key-prefix {before or "none"}, now {after or "none"}')
    return ', '.join(found + keys_that_differ(record.config, select, recipe))


def keys_that_differ(path, select, now):
    """Keys of the config in a file with their values there and now, a list of texts; empty where it cannot tell."""
    try:
        before = select(Config.fromfile(path, import_custom_modules=False).to_dict())
    except Exception:  # noqa: BLE001 - gone, or of another version: then it cannot tell
        return []
    before, now = (_flat({**recipe, 'hooks': {hook['type']: hook for hook in recipe['hooks']}})  # a file sorts them
                   for recipe in (before, now))
    # What only one of them has is filled in by the run itself, behind its hash.
    keys = [key for key in now if key in before and before[key] != now[key] and not is_owned(key)]
    shown = [f'{key} {before[key]}, now {now[key]}' for key in keys[:_SHOWN]]
    return shown + [f'{len(keys) - _SHOWN} more keys'] * (len(keys) > _SHOWN)


def _flat(value, prefix=''):
    """Dotted key → value as JSON, of nested dicts and lists."""
    if isinstance(value, dict) and value:
        children = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(child, (dict, list, tuple)) for child in value):
        children = enumerate(value)
    else:
        return {prefix: json.dumps(value, default=str)}
    return {key: found for name, child in children
            for key, found in _flat(child, f'{prefix}.{name}' if prefix else str(name)).items()}
