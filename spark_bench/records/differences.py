"""In which values two recipes differ: keys and values say more than two hashes."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spark_bench.errors import InputError

_SHOWN = 3


def keys_that_differ(
    before: Mapping[str, Any], now: Mapping[str, Any], *, apart: Sequence[str] = (), word: str = 'now'
) -> list[str]:
    """Dotted keys of two nested dicts with both their values, a text each; of many, the first and how many more.

    Keys whose last part is among ``apart`` do not count; ``word`` stands before the second of two values. A list of
    hooks counts by their types, whatever their order; ``none`` stands where one of the two has no such key.
    """
    before, now = (_flat(recipe) for recipe in (before, now))
    keys = [key for key in {**now, **before} if before.get(key) != now.get(key) and key.rpartition('.')[2] not in apart]
    shown = [f'{key} {before.get(key, "none")}, {word} {now.get(key, "none")}' for key in keys[:_SHOWN]]
    return shown + [f'{len(keys) - _SHOWN} more keys'] * (len(keys) > _SHOWN)


def of_another_run(path: object, differing: Iterable[str]) -> InputError:
    """The error that the record at ``path`` stands in the place of another run, in so many words what differs."""
    return InputError(
        f'{path} was measured with another configuration ({", ".join(differing)}): move it away, or give another '
        '--results'
    )


def _flat(value: Any, place: str = '') -> dict[str, str]:
    """Dotted key → value as JSON, of nested dicts and lists."""
    if isinstance(value, dict) and value:
        children: Iterable[tuple[object, Any]] = value.items()
    elif isinstance(value, list) and any(isinstance(child, (dict, list)) for child in value):
        typed = place == 'hooks' and all('type' in child for child in value)
        children = _by_type(value) if typed else enumerate(value)
    else:
        return {place: json.dumps(value)} if place else {}
    return {
        key: found
        for name, child in children
        for key, found in _flat(child, f'{place}.{name}' if place else str(name)).items()
    }


def _by_type(hooks):
    """Each hook by the name of its type, and by a number where there are several of one."""
    counts: Counter[str] = Counter()
    for hook in hooks:
        counts[hook['type']] += 1
        number = counts[hook['type']]
        yield hook['type'] if number == 1 else f'{hook["type"]}#{number}', hook
