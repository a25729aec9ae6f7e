"""Records on disk: written once and whole, checked on every read."""

import contextlib
import gc
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spark_bench.errors import InputError
from spark_bench.files import create_file, encode, remedy_of, try_writing
from spark_bench.places import NAME_PATTERN
from spark_bench.records.json_files import parse_json
from spark_bench.records.json_schema import ORIGINS, SCHEMA_VERSION, check, follow_schema
from spark_bench.records.schema import Record, record_path

_CHUNK = 100  # files in memory as parsed, before they are records
_RESTORE = 'restore it from version control, or move it away and repeat its run'
_NO_RECORD = 'this is no record: name a results folder, a folder inside one or a record, and keep other files elsewhere'


def write(record: Record, results: str | Path) -> Path:
    """Store ``record`` at the path that its identity gives it under ``results``; return that path.

    Any number of processes may write at once, and a reader never sees half a file. A record is never overwritten: where
    its repetition exists already (see ``is_repetition``), that file stays as it is.

    Raises:
        InputError: if another record has that path, if the record breaks the schema, or if the folder cannot be
            written.
    """
    values = json.loads(json.dumps(record.to_dict()))  # as it will be read back: tuples are lists
    check(values)
    path = record_path(results, *record.identity)
    text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False) + '\n'
    try:
        create_file(path, encode(text))
    except FileExistsError:
        if not path.is_file():
            raise InputError(
                f'{path}: a file stands where a folder is needed, or the reverse; move it away, or '
                'choose another --results folder'
            ) from None
        if not is_repetition(record, read(path)):
            raise InputError(
                f'{path}: holds the record of another run (other config, weights or data); records are '
                'never overwritten: delete the file to replace it, or choose another --seed or --results'
            ) from None
    except OSError as error:
        raise InputError(
            f'cannot write {path}: {error.strerror}; {remedy_of(error, "make the folder writable")}, or choose '
            'another with --results'
        ) from error
    return path


def is_repetition(record: Record, other: Record) -> bool:
    """Whether two records of one identity are of the same run repeated, or the same published figure."""
    return record == other if record.origin == 'published' else record.inputs == other.inputs


def read(path: str | Path) -> Record:
    """The record in the file at ``path``.

    Raises:
        InputError: one line with the file and the offending key, if the file cannot be read, is not JSON, does not
            follow the schema, or lies at a path that is not its identity.
    """
    return read_many([str(path)])[0]


def load_all(results: str | Path, suite: str | None = None, curves: bool = True) -> list[Record]:
    """All records under ``results``, ordered by path; an empty list if there are none.

    Args:
        results: root of the records.
        suite: name of the only suite to load; None for all.
        curves: whether records keep theirs. Without these, which are most of a record, thousands are loaded in half the
            time; they are checked all the same.

    Raises:
        InputError: for a file that is not a sound record, or lies where none belongs: a table that silently leaves a
            broken file out would be wrong.
    """
    paths = []
    for origin in ORIGINS:
        folder = Path(results, origin) if suite is None else suite_folder(results, origin, suite)
        paths += paths_below(folder, depth=4 if suite is None else 3)
    return read_many(paths, curves)


def read_many(paths: Sequence[str], curves: bool = True) -> list[Record]:
    """``read`` of each path, as strict and many times faster for thousands; ``curves`` as in ``load_all``."""
    records = []
    # What JSON holds has no cycles, yet the collector would look through millions of points again and again.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            contents = [parse_json(path, _remedy(path), strict_numbers=False) for path in chunk]
            if not follow_schema(contents):
                for path in chunk:
                    _check(path)
            for path, values in zip(chunk, contents, strict=True):
                records.append(_record(path, values if curves else {**values, 'curves': {}}))
    finally:
        if was_enabled:
            gc.enable()
    return records


def paths_below(folder: str | Path, depth: int = 5) -> list[str]:
    """What is named .json in ``folder`` and up to ``depth`` folders below, ordered by path; none without that folder.

    What is hidden is passed over. Links are followed as files and folders are.

    Raises:
        InputError: if a folder cannot be read, or if such a file lies deeper: ``depth`` folders lead to any record, so
            that it would be left out.
    """
    found = []
    waiting = [(str(folder), depth)]
    while waiting:
        parent, left = waiting.pop()
        try:
            with os.scandir(parent) as entries:
                for entry in entries:
                    if entry.name.startswith('.'):  # as systems leave them beside copies: no record is named so
                        continue
                    if entry.name.endswith('.json') and left < 0:
                        raise InputError(
                            f'{entry.path}: too deep below {folder} to be one of its records; move it '
                            'out of the results folder, or name that folder itself'
                        )
                    if entry.name.endswith('.json'):
                        found.append(entry.path)
                    elif entry.is_dir(follow_symlinks=left > 0):  # a link may lead round in a circle
                        waiting.append((entry.path, left - 1))
                    elif entry.is_symlink() and not os.path.exists(entry.path):
                        raise InputError(
                            f'{entry.path} is a link that leads nowhere, and records may be there: restore what it '
                            'leads to, or remove it'
                        )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InputError(f'{parent}: cannot read this folder of records: {error.strerror}') from error
    return sorted(found, key=lambda path: path.split(os.sep))


def _check(path: str) -> None:
    """Raise InputError if the file at ``path`` breaks the schema, or has a number that no float can hold."""
    values = parse_json(path, _remedy(path))
    version = values.get('schema_version') if isinstance(values, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f'{path}: key "schema_version": this is a record of version {version}, and this program knows '
            f'{SCHEMA_VERSION}: use the one that wrote it, or a newer one'
        )
    if not isinstance(values, dict) or not {'origin', 'task'} & values.keys():
        raise InputError(f'{path}: {_NO_RECORD}')
    try:
        check(values)
    except (InputError, RecursionError) as error:
        raise InputError(f'{path}: {error}; {_remedy(path)}') from error


def _remedy(path: str | Path) -> str:
    """What to do about a file that cannot be read as a record: those have the number of their seed for a name."""
    return _RESTORE if re.fullmatch(r'\d+\.json', os.path.basename(path)) else _NO_RECORD


def _record(path: str, values: dict[str, Any]) -> Record:
    """The record that ``values``, of the file at ``path``, hold; raises InputError if that is not where it belongs."""
    record = Record(**values)
    expected = [*record.identity[:-1], f'{record.seed}.json']
    if path.split(os.sep)[-6:] == expected:
        return record
    parts = ['', '', '', '', '', '', *Path(os.path.abspath(path)).parts][-6:]
    for key, part, value in zip(('origin', 'suite', 'task', 'arch', 'method', 'seed'), parts, expected, strict=True):
        if part != value:
            raise InputError(
                f'{path}: key "{key}": the record says {value.removesuffix(".json")!r}, but its path says '
                f'{part.removesuffix(".json")!r}; move it back to {"/".join(expected)}'
            )
    return record


def find(results: str | Path, origin: str, suite: str, task: str, arch: str, method: str, seed: int) -> Record | None:
    """The record of that identity, or None. Raises InputError if the file is there but unsound."""
    path = record_path(results, origin, suite, task, arch, method, seed)
    try:
        return read(path) if os.path.lexists(path) else None
    except OSError as error:  # of a folder that may not be entered
        raise InputError(f'{path}: cannot read this record: {error.strerror}') from error


def check_writable(
    results: str | Path,
    origin: str,
    suite: str,
    task: str,
    arch: str,
    method: str,
    seed: int,
    *,
    option: str = '--results',
) -> None:
    """See, before the run, that a record of that identity can be written.

    Raises:
        InputError: if not, naming the ``option`` that gives ``results``.
    """
    path = record_path(results, origin, suite, task, arch, method, seed)
    folder = next(parent for parent in path.parents if os.path.exists(parent))
    try:
        try_writing(folder)
    except OSError as error:
        raise InputError(
            f'cannot write {path}: {folder} is not a folder that may be written to ({error.strerror}); '
            f'make it so, or choose another with {option}'
        ) from error


def suite_folder(results: str | Path, origin: str, suite: str) -> Path:
    """``<results>/<origin>/<suite>``. Raises InputError if ``suite`` is not fit to be a folder's name."""
    return record_path(results, origin, suite, 'pretrain', 'arch', 'method', 0).parents[3]


def recorded_suites(results: str | Path) -> list[str]:
    """The names of the suites of which there are folders of records, as far as they can be read."""
    found = set()
    for origin in ORIGINS:
        with contextlib.suppress(OSError):
            found |= {path.parent.name for path in Path(results, origin).glob('*/*/')}
    return sorted(name for name in found if re.match(NAME_PATTERN, name))
