"""JSON files read strictly: what a lenient reader would let pass is refused in one line."""

import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from spark_bench.errors import InputError


def parse_json(path: str | Path, remedy: str = 'mend the file', strict_numbers: bool = True) -> Any:
    """What the JSON file at ``path`` holds.

    Args:
        remedy: what to do about a broken file, for the message.
        strict_numbers: refuse also a number that no float can hold.

    Raises:
        InputError: if the file cannot be read, is not JSON, gives a key twice, or has a number that JSON lacks.
    """
    try:
        with io.FileIO(path, opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError('no ordinary file')
            text = file.readall().decode('utf-8')
        return (_DECODER_OF_FINITE if strict_numbers else _DECODER).decode(text)
    except OSError as error:
        raise InputError(f'{path}: cannot read it: {error.strerror}') from error
    except InputError as error:
        raise InputError(f'{path}: {error}; {remedy}') from error
    except (ValueError, RecursionError) as error:  # also undecodable bytes
        raise InputError(f'{path}: not JSON ({error}); {remedy}') from error


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting: a pipe may never have a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _no_constant(name: str) -> float:
    raise InputError(f'{name} is not a JSON number')


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InputError(f'{text} is too large a number')
    return value


def _finite_int(text: str) -> int:
    _finite_float(text)
    return int(text)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f'key {twice!r} appears twice')
    return values


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
_DECODER_OF_FINITE = json.JSONDecoder(
    parse_constant=_no_constant, object_pairs_hook=_no_duplicates, parse_float=_finite_float, parse_int=_finite_int
)
