"""What a suite file may say: every value is looked at before anything runs."""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from string import Formatter
from typing import Any

from spark_bench.errors import InputError, nearest, printable
from spark_bench.models.methods import METHODS
from spark_bench.places import NAME_PATTERN, shipped
from spark_bench.records.json_schema import TASK_PATTERN
from spark_bench.runs.options import OPTIONS_OF
from spark_bench.tables.parts import Column, TableSpec

# What the records of each kind of task hold, see the engines.
_RATES = tuple(f'{kind}_{which}' for kind in ('top1_last', 'top1_best', 'epoch_best') for which in ('raw', 'ema'))
_COCO = (
    'ap',
    'ap50',
    'ap75',
    'ap_small',
    'ap_medium',
    'ap_large',
    'ar1',
    'ar10',
    'ar100',
    'ar_small',
    'ar_medium',
    'ar_large',
    'ap_low',
    'ap_high',
)
METRICS = {
    'pretrain': ('loss', 'skipped_images'),
    'classification': ('top1', 'top5', *_RATES),
    'linear': ('top1', 'top5', 'penalty', 'top1_held_out', 'iterations', 'converged'),
    'knn': ('top1', 'top5', 'neighbours'),
    'profile': (
        'images_per_s',
        'speed_up',
        *(f'{part}_s' for part in ('load', 'forward', 'backward', 'optimizer', 'step')),
        *('peak_gb', 'encoder_peak_gb', 'gmacs', 'traffic_gb', 'matrix_gmacs_per_s', 'bandwidth_gb_per_s'),
        *('matrix_share', 'bandwidth_share', 'loss'),
    ),
    'detection': (*(f'{kind}_{figure}' for kind in ('box', 'mask') for figure in (*_COCO, 'ap_best')), 'update_best'),
}
KINDS = ('pretrain', 'classification', 'detection')
STARTS = ('none', 'published', 'recipe')
# How a cell names a part of the embedded data set (``embedded:detection``), and the size of that.
EMBEDDED = {'embedded': 'full', 'embedded-quick': 'quick'}
PARTS = ('unlabelled', 'classification', 'detection')


def _is_text(value):
    return isinstance(value, str) and value.strip() != ''


def _is_name(value):
    return isinstance(value, str) and re.match(NAME_PATTERN, value) is not None


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float('inf')


def _is_count(value, least=0):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**32


def _is_list_of(holds):
    return lambda value: isinstance(value, (list, tuple)) and bool(value) and all(map(holds, value))


_COUNT = (_is_count, 'a whole number, 0 or more')
_POSITIVE = (lambda value: _is_count(value, 1), 'a whole number from 1 up')
_NUMBER = (_is_number, 'a number above 0')
_FLAG = (lambda value: isinstance(value, bool), 'True or False')
_NAMES = 'letters, digits, ".", "_" and "-"'

_SUITE = {
    'title': (_is_text, 'text'),
    'note': (_is_text, 'text'),
    'data': (lambda value: isinstance(value, dict), 'a dict, from the name of each data set to what it has to be'),
    'beside': (_is_name, f'the name of a suite ({_NAMES})'),
    'cells': (_is_list_of(lambda group: isinstance(group, dict)), 'a list of dicts, one a group of cells'),
    'tables': (lambda value: isinstance(value, (list, tuple)), 'a list of dicts, one a table'),
}
_GROUP = {
    'task': (
        lambda value: isinstance(value, str) and re.match(TASK_PATTERN, value) and value.split('_')[0] in KINDS,
        f'{", ".join(KINDS)}, or one of them with a variant such as detection_2x',
    ),
    'arch': (lambda value: _is_name(value) or _is_list_of(_is_name)(value), f'a name or a list of names ({_NAMES})'),
    'methods': (_is_list_of(_is_name), f'a list of names ({_NAMES})'),
    'recipe': (_is_text, 'the path of a config'),
    'data': (_is_text, 'the name of a data set'),
    'seeds': (_is_list_of(_is_count), 'a list of whole numbers, 0 or more'),
    'start': (
        lambda value: value in STARTS or isinstance(value, str) and re.fullmatch(r'pretrain(_[a-z0-9]+)?', value),
        f'{", ".join(STARTS)}, or a task of pretraining',
    ),
    'options': (lambda value: isinstance(value, dict), 'a dict'),
    'overrides': (
        lambda value: isinstance(value, dict) and all(map(_is_text, value)),
        'a dict from dotted keys of the recipe to values',
    ),
    'tune': (
        lambda value: (
            isinstance(value, dict)
            and set(value) == {'tasks', 'metric'}
            and _is_list_of(lambda task: _is_text(task) and re.match(TASK_PATTERN, task))(value['tasks'])
            and all(value['metric'] in METRICS.get(task.partition('_')[0], ()) for task in value['tasks'])
            and all(Column(task, value['metric'], '').direction for task in value['tasks'])
        ),
        'dict(tasks=[…], metric=…), tasks of cells and a metric that they have, of which more or less is better',
    ),
    'images': _NUMBER,
    'gmacs': _NUMBER,
    'weight': _NUMBER,
}
_NEEDED = ('task', 'arch', 'methods', 'recipe', 'data')
# The options of runs that are left to a suite, where their kind has them; the others follow from the cell.
OPTIONS = {
    'threads': _POSITIVE,
    'workers': _COUNT,
    'batch_size': _POSITIVE,
    'accumulate': _POSITIVE,
    'amp': _FLAG,
    'channels_last': _FLAG,
    'compile': _FLAG,
    'image_interval': _COUNT,
    'checkpoint_interval': _POSITIVE,
    'label_seed': _COUNT,
    'bootstrap': _COUNT,
    'frozen': _FLAG,
    'val_interval': _POSITIVE,
    'bad_images': (lambda value: value in ('fail', 'skip'), 'fail or skip'),
    'backend': (lambda value: value in ('fast', 'pycocotools'), 'fast or pycocotools'),
    'label_fraction': (lambda value: _is_number(value) and value <= 1, 'a number above 0, up to 1'),
}
_TABLE = {
    'name': (_is_name, f'a name ({_NAMES})'),
    'title': (_is_text, 'text'),
    'columns': (
        _is_list_of(lambda column: _is_list_of(_is_text)(column) and len(column) == 3),
        'a list of (task, metric, label)',
    ),
    'methods': (_is_list_of(_is_name), 'a list of names'),
    'archs': (_is_list_of(_is_name), 'a list of names'),
    'baseline': (_is_name, 'the name of a method'),
    'pairs': (_is_list_of(lambda pair: _is_list_of(_is_name)(pair) and len(pair) == 2), 'a list of (arch, method)'),
    'best_of': (lambda value: value in ('backbone', 'table'), 'backbone or table'),
}


def check_suite(path: Path, cfg: Mapping[str, Any]) -> None:
    """Look at the file as a whole.

    Raises:
        InputError: one line naming the file and the key that is wrong; so do the others.
    """
    where = f'suite {path}'
    if not _is_name(path.stem):
        raise InputError(f'{where}: its file name is that of the records: use {_NAMES}')
    _check(where, {key: value for key, value in cfg.items() if not key.startswith('_')}, _SUITE, ('cells',))
    for name, what in cfg.get('data', {}).items():
        if not _is_name(name) or name in EMBEDDED or not _is_text(what):
            raise InputError(
                f'{where} has data {name!r}: {what!r}: give a name ({_NAMES}; '
                f'{" and ".join(EMBEDDED)} are taken) and what it has to be'
            )


def check_group(where: str, group: Mapping[str, Any], data: Mapping[str, str]) -> None:
    """Look at a group of cells; ``data`` are the data sets of the suite."""
    _check(where, group, _GROUP, _NEEDED)
    kind = {field.name for field in fields(OPTIONS_OF[group['task'].partition('_')[0]])}
    _check(f'{where}, options', group.get('options', {}), {key: OPTIONS[key] for key in OPTIONS if key in kind})
    embedded, _, part = group['data'].partition(':')
    if group['data'] not in data and not (embedded in EMBEDDED and part in PARTS):
        raise InputError(
            f'{where} names data {group["data"]!r}: describe it under data, beside '
            f'{", ".join(data) or "nothing"}; or take embedded:… or embedded-quick:… with '
            f'{", ".join(PARTS)}'
        )
    if not group['task'].startswith('pretrain'):
        return
    if 'start' in group:
        raise InputError(f'{where} has a start: a pretraining starts from nothing, leave it away')
    unknown = [method for method in group['methods'] if method not in METHODS]
    if unknown:
        raise InputError(f'{where} pretrains {unknown[0]!r}: choose one of {", ".join(METHODS)}')


def find_recipe(where: str, recipe: str, arch: str) -> str:
    """Fill ``{arch}`` and ``{size}`` (its last part) in the path of a recipe, and see that it is there."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(recipe) if field is not None}
        if not fields <= {'arch', 'size'}:
            raise ValueError(f'{{{(fields - {"arch", "size"}).pop()}}}')
        filled = recipe.format(arch=arch, size=arch.rpartition('_')[2])
    except ValueError as error:
        raise InputError(f'{where} has recipe {recipe!r} ({error}): {{arch}} and {{size}} are filled in') from error
    # A path that is absolute stays as it is.
    if not shipped(filled).is_file():
        raise InputError(
            f'{where} names the recipe {filled}, which is not there: give its absolute path, or '
            f'that below {shipped(".")}'
        )
    return filled


def make_table(where: str, entry: object) -> TableSpec:
    """The :class:`~spark_bench.tables.parts.TableSpec` of an entry of the suite's tables."""
    if not isinstance(entry, dict):
        raise InputError(f'{where} is {printable(repr(entry))[:60]}: a table is a dict')
    _check(where, entry, _TABLE, ('name', 'title', 'columns'))
    for task, metric, _ in entry['columns']:
        if not re.match(TASK_PATTERN, task):
            raise InputError(f'{where} has a column of task {task!r}: give {_GROUP["task"][1]}')
        known = METRICS[task.partition('_')[0]]
        if metric not in known:
            close = nearest(metric, known)
            raise InputError(
                f'{where} has a column {metric!r} of {task}, a metric that it does not have'
                f'{f" ({close})" * bool(close)}: choose one of {", ".join(known)}'
            )
    return TableSpec(**entry)


def _check(where, values, allowed, needed=()):
    missing = [key for key in needed if key not in values]
    unknown = sorted(str(key) for key in values if key not in allowed)
    if missing or unknown:
        what = f'has no {missing[0]!r}' if missing else f'has an unknown key {unknown[0]!r}'
        raise InputError(f'{where} {what}: its keys are {", ".join(sorted(allowed))}')
    for key, value in values.items():
        holds, wanted = allowed[key]
        if not holds(value):
            raise InputError(f'{where} has {key} = {printable(repr(value))[:80]}: give {wanted}')
