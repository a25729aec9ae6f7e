"""A JSON Schema as a check of many values at once, for reading thousands of records in a second.

The jsonschema package explains what is wrong, at the price of milliseconds a record. This check answers one question
for a whole list of values: do all of them surely follow the schema? It looks at them column by column, so that most
of the work is done by Python's own C code: at the types of all seeds, then at the smallest of them, and so on. Where
the answer is no, the caller asks jsonschema, which has the last word.
"""

import itertools
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ['compile_check']

Check = Callable[[Sequence[Any]], bool]  # whether every one of the values surely follows the schema
Part = Callable[[Sequence[Any], set[type]], bool]  # the same for some keywords, told which types the values have

TYPES = {
    'string': {str}, 'integer': {int}, 'number': {int, float}, 'boolean': {bool}, 'null': {type(None)},
    'object': {dict}, 'array': {list},
}  # fmt: skip


def compile_check(schema: dict[str, Any] | bool) -> Check:
    """A check for `schema`, of the part of JSON Schema (draft 2020-12) that the schema of records uses.

    It is never more lenient than jsonschema, and stricter in two ways: an integer written as a float, such as 2.0,
    and a number that is not finite do not pass.

    Raises:
        NotImplementedError: for a keyword, or a use of one, that it does not know.
    """
    if isinstance(schema, bool):
        return lambda values: schema or not values
    keywords = dict(schema)
    keywords.pop('$schema', None)
    checks = [make(keywords) for make in (_type, _constant, _text, _number, _object, _array, _condition, _negation)]
    if keywords:
        raise NotImplementedError(f'JSON Schema keywords {", ".join(keywords)}')
    checks = [check for check in checks if check is not None]

    def follow(values: Sequence[Any]) -> bool:
        kinds = set(map(type, values))
        return all(check(values, kinds) for check in checks)

    return follow


def _of(values: Sequence[Any], kinds: set[type], *wanted: type) -> Sequence[Any]:
    if kinds.isdisjoint(wanted):
        return []
    return values if kinds <= set(wanted) else [value for value in values if type(value) in wanted]


def _type(keywords: dict[str, Any]) -> Part | None:
    names = keywords.pop('type', None)
    if names is None:
        return None
    allowed = set().union(*(TYPES[name] for name in ([names] if isinstance(names, str) else names)))
    return lambda values, kinds: kinds <= allowed


def _constant(keywords: dict[str, Any]) -> Part | None:
    # With their types: to Python, 1 and True are equal.
    allowed = [{(type(v), v) for v in keywords.pop(name)} for name in ('enum',) if name in keywords]
    if 'const' in keywords:
        constant = keywords.pop('const')
        allowed.append({(type(constant), constant)})
    if not allowed:
        return None
    known = {kind for kind, _ in set().union(*allowed)}

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        if not kinds <= known:  # also because lists and dicts have no hash
            return False
        found = set(zip(map(type, values), values, strict=True))
        return all(found <= choice for choice in allowed)

    return check


def _text(keywords: dict[str, Any]) -> Part | None:
    pattern, shortest, longest = (keywords.pop(name, None) for name in ('pattern', 'minLength', 'maxLength'))
    if pattern is shortest is longest is None:
        return None
    search = re.compile(pattern or '').search

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        texts = set(_of(values, kinds, str))
        return all(
            search(text) and len(text) >= (shortest or 0) and (longest is None or len(text) <= longest)
            for text in texts
        )

    return check


def _number(keywords: dict[str, Any]) -> Part | None:
    least, most = keywords.pop('minimum', None), keywords.pop('maximum', None)

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        numbers = _of(values, kinds, int, float)
        if not numbers:
            return True
        try:
            # A sum is finite only if every number is; that it overflows for large ones is no matter.
            finite = math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))
        except OverflowError:  # an integer that no float can hold
            return False
        return finite and (least is None or least <= min(numbers)) and (most is None or max(numbers) <= most)

    return check


def _object(keywords: dict[str, Any]) -> Part | None:
    names = ('properties', 'required', 'additionalProperties', 'patternProperties', 'propertyNames')
    if not any(name in keywords for name in names):
        return None
    properties = {key: compile_check(schema) for key, schema in keywords.pop('properties', {}).items()}
    required = frozenset(keywords.pop('required', ()))
    names_check = compile_check(keywords.pop('propertyNames', True))
    patterns = [
        (re.compile(pattern).search, compile_check(schema))
        for pattern, schema in keywords.pop('patternProperties', {}).items()
    ]
    says_others = 'additionalProperties' in keywords
    others = compile_check(keywords.pop('additionalProperties', True))

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        objects = _of(values, kinds, dict)
        keys = list(set().union(*objects))
        if not names_check(keys) or not all(o.keys() >= required for o in objects):
            return False
        for key, follows in properties.items():
            having = objects if key in required else [o for o in objects if key in o]
            if not follows(list(map(operator.itemgetter(key), having))):
                return False
        return _follow_others(objects, [key for key in keys if patterns or says_others and key not in properties])

    def _follow_others(objects: Sequence[dict], keys: Sequence[str]) -> bool:
        columns: dict[str, list] = {key: [] for key in keys}
        if columns:
            for key, value in itertools.chain.from_iterable(o.items() for o in objects):
                if key in columns:
                    columns[key].append(value)
        for key, column in columns.items():
            matching = [follows for search, follows in patterns if search(key)]
            if not matching and key not in properties:
                matching = [others]
            if not all(follows(column) for follows in matching):
                return False
        return True

    return check


def _array(keywords: dict[str, Any]) -> Part | None:
    names = ('items', 'prefixItems', 'minItems', 'maxItems')
    if not any(name in keywords for name in names):
        return None
    prefix = [compile_check(schema) for schema in keywords.pop('prefixItems', ())]
    items = compile_check(keywords.pop('items', True))
    fewest, most = keywords.pop('minItems', 0), keywords.pop('maxItems', math.inf)

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        arrays = _of(values, kinds, list)
        lengths = set(map(len, arrays))
        if not all(fewest <= length <= most for length in lengths):
            return False
        for place, follows in enumerate(prefix):
            long_enough = arrays if place < min(lengths, default=0) else [a for a in arrays if place < len(a)]
            if not follows(list(map(operator.itemgetter(place), long_enough))):
                return False
        if prefix and max(lengths, default=0) > len(prefix):
            arrays = [array[len(prefix) :] for array in arrays]
        elif prefix:
            arrays = []
        return items(list(itertools.chain.from_iterable(arrays)))

    return check


def _condition(keywords: dict[str, Any]) -> Part | None:
    if 'if' not in keywords:
        return None
    condition = keywords.pop('if')
    constants = {key: schema.get('const') for key, schema in condition.get('properties', {}).items()}
    if set(condition) != {'properties'} or not all(isinstance(value, str) for value in constants.values()):
        raise NotImplementedError('JSON Schema keyword if, other than for properties that are constant strings')
    then, otherwise = (compile_check(keywords.pop(name, True)) for name in ('then', 'else'))

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        groups: dict[bool, list] = {True: [], False: []}
        for value in values:
            holds = type(value) is not dict or all(value.get(key, text) == text for key, text in constants.items())
            groups[holds].append(value)
        return then(groups[True]) and otherwise(groups[False])

    return check


def _negation(keywords: dict[str, Any]) -> Part | None:
    if 'not' not in keywords:
        return None
    schema = keywords.pop('not')
    if schema != {'type': 'null'}:
        raise NotImplementedError('JSON Schema keyword not, other than for null')
    return lambda values, kinds: type(None) not in kinds
