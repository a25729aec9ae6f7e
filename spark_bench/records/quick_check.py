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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Check = Callable[[Sequence[Any]], bool]  # whether every one of the values surely follows the schema
Part = Callable[[Sequence[Any], set[type]], bool]  # the same for some keywords, told which types the values have
Given = Mapping[str, Any]  # those keywords of one part that a schema has

TYPES: dict[str, set[type]] = {
    'string': {str},
    'integer': {int},
    'number': {int, float},
    'boolean': {bool},
    'null': {type(None)},
    'object': {dict},
    'array': {list},
}


def compile_check(schema: dict[str, Any] | bool) -> Check:
    """A check for ``schema``, of the part of JSON Schema (draft 2020-12) that the schema of records uses.

    It is never more lenient than jsonschema, and stricter in two ways: an integer written as a float, such as 2.0, and
    a number that is not finite do not pass.

    Raises:
        NotImplementedError: for a keyword, or a use of one, that it does not know.
    """
    if isinstance(schema, bool):
        return lambda values: schema or not values
    left = {name: value for name, value in schema.items() if name != '$schema'}
    checks = []
    for make, names in PARTS.items():
        given = {name: left.pop(name) for name in names if name in left}
        if given or make is _number:  # wherever a number stands, it may be one that is not finite
            checks.append(make(given))
    if left:
        raise NotImplementedError(f'JSON Schema keywords {", ".join(left)}')

    def follow(values: Sequence[Any]) -> bool:
        kinds = set(map(type, values))
        return all(check(values, kinds) for check in checks)

    return follow


def _of(values: Sequence[Any], kinds: set[type], *wanted: type) -> Sequence[Any]:
    if kinds.isdisjoint(wanted):
        return []
    return values if kinds <= set(wanted) else [value for value in values if type(value) in wanted]


def _type(given: Given) -> Part:
    names = [given['type']] if isinstance(given['type'], str) else given['type']
    allowed: set[type] = set().union(*(TYPES[name] for name in names))
    return lambda values, kinds: kinds <= allowed


def _constant(given: Given) -> Part:
    # With their types: to Python, 1 and True are equal.
    choices = [[given[name]] if name == 'const' else given[name] for name in given]
    allowed = [{(type(value), value) for value in values} for values in choices]
    known = {kind for kind, _ in set().union(*allowed)}

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        if not kinds <= known:  # also because lists and dicts have no hash
            return False
        found = set(zip(map(type, values), values, strict=True))
        return all(found <= choice for choice in allowed)

    return check


def _text(given: Given) -> Part:
    search = re.compile(given.get('pattern', '')).search
    shortest, longest = given.get('minLength', 0), given.get('maxLength', math.inf)

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        return all(search(text) and shortest <= len(text) <= longest for text in set(_of(values, kinds, str)))

    return check


def _number(given: Given) -> Part:
    least, most = given.get('minimum', -math.inf), given.get('maximum', math.inf)

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        numbers = _of(values, kinds, int, float)
        if not numbers:
            return True
        try:
            # A sum is finite only if every number is; that it overflows for large ones is no matter.
            finite = math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))
        except OverflowError:  # an integer that no float can hold
            return False
        return finite and least <= min(numbers) and max(numbers) <= most

    return check


def _object(given: Given) -> Part:
    properties = {key: compile_check(schema) for key, schema in given.get('properties', {}).items()}
    required = frozenset(given.get('required', ()))
    names_check = compile_check(given.get('propertyNames', True))
    patterns = [
        (re.compile(pattern).search, compile_check(schema))
        for pattern, schema in given.get('patternProperties', {}).items()
    ]
    others = compile_check(given.get('additionalProperties', True))

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        objects = _of(values, kinds, dict)
        keys = set().union(*objects)
        if not names_check(list(keys)) or not all(o.keys() >= required for o in objects):
            return False
        for key in keys:
            applying = [properties[key]] if key in properties else []
            applying += [follows for search, follows in patterns if search(key)]
            column = [o[key] for o in objects if key in o]
            if not all(follows(column) for follows in applying or [others]):
                return False
        return True

    return check


def _array(given: Given) -> Part:
    prefix = [compile_check(schema) for schema in given.get('prefixItems', ())]
    items = compile_check(given.get('items', True))
    fewest, most = given.get('minItems', 0), given.get('maxItems', math.inf)
    if prefix and not fewest == most == len(prefix):
        raise NotImplementedError('JSON Schema keyword prefixItems, other than for all items of arrays of one length')

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        arrays = _of(values, kinds, list)
        if not all(fewest <= length <= most for length in set(map(len, arrays))):
            return False
        if prefix:
            return all(follows(list(map(operator.itemgetter(place), arrays))) for place, follows in enumerate(prefix))
        return items(list(itertools.chain.from_iterable(arrays)))

    return check


def _condition(given: Given) -> Part:
    condition = given.get('if', {})
    constants = {key: schema.get('const') for key, schema in condition.get('properties', {}).items()}
    if set(condition) != {'properties'} or not all(isinstance(value, str) for value in constants.values()):
        raise NotImplementedError('JSON Schema keyword if, other than for properties that are constant strings')
    then, otherwise = (compile_check(given.get(name, True)) for name in ('then', 'else'))

    def check(values: Sequence[Any], kinds: set[type]) -> bool:
        groups: dict[bool, list[Any]] = {True: [], False: []}
        for value in values:
            holds = type(value) is not dict or all(value.get(key, text) == text for key, text in constants.items())
            groups[holds].append(value)
        return then(groups[True]) and otherwise(groups[False])

    return check


def _negation(given: Given) -> Part:
    if given['not'] != {'type': 'null'}:
        raise NotImplementedError('JSON Schema keyword not, other than for null')
    return lambda values, kinds: type(None) not in kinds


PARTS: dict[Callable[[Given], Part], tuple[str, ...]] = {
    _type: ('type',),
    _constant: ('enum', 'const'),
    _text: ('pattern', 'minLength', 'maxLength'),
    _number: ('minimum', 'maximum'),
    _object: ('properties', 'required', 'additionalProperties', 'patternProperties', 'propertyNames'),
    _array: ('items', 'prefixItems', 'minItems', 'maxItems'),
    _condition: ('if', 'then', 'else'),
    _negation: ('not',),
}
