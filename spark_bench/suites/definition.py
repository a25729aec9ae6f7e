"""A suite: the set of runs that a table of a paper is made of, read from a small config file."""

import itertools
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from pretrain.ablations import ABLATIONS
from spark_bench.errors import InputError
from spark_bench.places import shipped
from spark_bench.records.schema import record_path
from spark_bench.records.table_parts import TableSpec

SHIPPED = 'spark_bench/suites/shipped'
# How a cell names a part of the embedded data set (``embedded:detection``), and the size of that.
EMBEDDED = {'embedded': 'full', 'embedded-quick': 'quick'}
_GROUP_KEYS = {'task', 'arch', 'methods', 'recipe', 'data', 'seeds', 'start', 'options', 'overrides', 'pictures',
               'gmacs', 'weight'}
_NEEDED = ('task', 'arch', 'methods', 'recipe', 'data')
_SUITE_KEYS = {'title', 'note', 'data', 'cells', 'tables'}
KINDS = ('pretrain', 'classification', 'detection')


@dataclass(frozen=True)
class CellSpec:
    """One run of a suite: task × architecture × method × seed.

    Attributes:
        task: ``pretrain``, ``classification`` or ``detection``, perhaps with a variant (``detection_2x``).
        arch, method, seed: with task, the identity of its record.
        recipe: config file, relative to where the recipes are installed, or absolute.
        data: name of a data set of the suite, or a part of the embedded one (``embedded:detection``).
        start: what it starts from: ``none``; ``published`` (the index's file of that method); ``recipe`` (what the
            recipe says); or the task of the pretraining whose encoder it takes.
        options: further arguments of :class:`~spark_bench.engine.runs.RunOptions`.
        overrides: dotted keys of the recipe to values.
        pictures: that the run computes in training, for estimates; None where unknown.
        gmacs: 10^9 multiply-adds a picture in a forward pass, for estimates; None to take the network's.
        weight: expected seconds on a CPU core, for the bar of progress.
        needs: the cell of the pretraining that it starts from.
    """

    task: str
    arch: str
    method: str
    seed: int
    recipe: str
    data: str
    start: str = 'none'
    options: dict = field(default_factory=dict)
    overrides: dict = field(default_factory=dict)
    pictures: float | None = None
    gmacs: float | None = None
    weight: float = 1.0
    needs: 'CellSpec | None' = None

    @property
    def name(self):
        """``task/arch/method/seed``, as ``--only`` matches it."""
        return f'{self.task}/{self.arch}/{self.method}/{self.seed}'

    @property
    def kind(self):
        """The task without its variant."""
        return self.task.partition('_')[0]

    def record_path(self, suite, results):
        """Where the record of this cell is, or will be."""
        return record_path(results, 'measured', suite, self.task, self.arch, self.method, self.seed)


@dataclass(frozen=True)
class Suite:
    """What :func:`load_suite` reads.

    Attributes:
        name: of the records.
        title, note: for people.
        data: from name of a data set to what it has to be.
        cells: tuple of :class:`CellSpec`, every pretraining before what starts from it.
        tables: tuple of :class:`~spark_bench.records.table_parts.TableSpec`.
    """

    name: str
    title: str
    note: str
    data: dict
    cells: tuple
    tables: tuple


def is_embedded(data):
    """Whether a cell's data is a part of the embedded data set."""
    return data.partition(':')[0] in EMBEDDED


def shipped_suites():
    """Names of the suites that come with the project."""
    return sorted(path.stem for path in shipped(SHIPPED).glob('*.py') if not path.stem.startswith('_'))


def load_suite(name, arch=None):
    """Read a suite.

    Args:
        name: of a shipped suite, or the path of a config file, whose stem is then the name of the records.
        arch: in place of every architecture of the suite.

    Raises:
        InputError: one line naming the file and the key that is wrong.
    """
    from mmengine.config import Config
    path = Path(name) if str(name).endswith('.py') else shipped(f'{SHIPPED}/{name}.py')
    if not path.is_file():
        raise InputError(f'no suite {name!r}: choose one of {", ".join(shipped_suites())}, or give the path of a .py '
                         'file')
    try:
        cfg = Config.fromfile(path, import_custom_modules=False).to_dict()
    except Exception as error:  # noqa: BLE001 - a config is Python, and may raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f'suite {path} cannot be read: {reason[0]}') from error
    unknown = sorted(key for key in set(cfg) - _SUITE_KEYS if not key.startswith('_'))
    if unknown or 'cells' not in cfg:
        what = f'has an unknown key {unknown[0]!r}' if unknown else 'has no cells'
        raise InputError(f'suite {path} {what}: its keys are {", ".join(sorted(_SUITE_KEYS))}')
    data = cfg.get('data', {})
    cells = [cell for number, group in enumerate(cfg['cells']) for cell in _expand(path, number, group, data, arch)]
    names = [cell.name for cell in cells]
    twice = next((cell for cell in names if names.count(cell) > 1), None)
    if twice:
        raise InputError(f'suite {path} has the cell {twice} twice: give one of them another seed or task')
    stem = path.stem.replace('_', '-')
    tables = tuple(_table(path, number, entry) for number, entry in enumerate(cfg.get('tables', ())))
    if len({table.name for table in tables}) < len(tables):
        raise InputError(f'suite {path} has two tables of one name, which would be one file: rename one')
    return Suite(stem, cfg.get('title', stem), cfg.get('note', ''), data, tuple(_connect(path, cells)), tables)


@lru_cache(maxsize=16)
def specs_of(name):
    """The tables of a shipped suite, as its records name it; None for any other, or where it lists none."""
    if name.replace('-', '_') not in shipped_suites():
        return None
    return load_suite(name.replace('-', '_')).tables or None


def _table(path, number, entry):
    try:
        return TableSpec(**entry)
    except (TypeError, ValueError) as error:
        raise InputError(f'suite {path}, tables[{number}]: {error}') from error


def _expand(path, number, group, data, arch):
    """The cells of one group: every architecture × method × seed of it."""
    where = f'suite {path}, cells[{number}]'
    missing = [key for key in _NEEDED if key not in group]
    unknown = sorted(set(group) - _GROUP_KEYS)
    if missing or unknown:
        what = f'has no {missing[0]!r}' if missing else f'has an unknown key {unknown[0]!r}'
        raise InputError(f'{where} {what}: its keys are {", ".join(sorted(_GROUP_KEYS))}')
    kind = str(group['task']).partition('_')[0]
    if kind not in KINDS:
        raise InputError(f'{where} has task {group["task"]!r}: it begins with one of {", ".join(KINDS)}')
    if group['data'] not in data and not is_embedded(group['data']):
        raise InputError(f'{where} names data {group["data"]!r}: describe it under data, beside '
                         f'{", ".join(data) or "nothing"}')
    shared = {key: group[key] for key in ('pictures', 'gmacs', 'weight', 'options', 'overrides') if key in group}
    archs = [arch] if arch else [group['arch']] if isinstance(group['arch'], str) else group['arch']
    for name, method, seed in itertools.product(archs, group['methods'], group.get('seeds', [0])):
        recipe = group['recipe'].format(arch=name, size=name.rpartition('_')[2])
        if not (Path(recipe).is_file() if Path(recipe).is_absolute() else shipped(recipe).is_file()):
            raise InputError(f'{where} names the recipe {recipe}, which is not there')
        if kind == 'pretrain' and not (method in ABLATIONS and ABLATIONS[method].pretrains):
            raise InputError(f'{where} pretrains {method!r}: choose one of '
                             f'{", ".join(key for key, value in ABLATIONS.items() if value.pretrains)}')
        start = 'none' if kind == 'pretrain' or method == 'scratch' else group.get('start', 'pretrain')
        yield CellSpec(group['task'], name, method, seed, recipe, group['data'], start, **shared)


def _connect(path, cells):
    """Give each cell that starts from a pretraining the cell of it; pretrainings first."""
    pretrainings = {}
    for cell in cells:
        if cell.kind == 'pretrain':
            pretrainings.setdefault((cell.task, cell.arch, cell.method), {})[cell.seed] = cell
    for cell in sorted(cells, key=lambda cell: cell.kind != 'pretrain'):
        if not re.match(r'pretrain(_|$)', cell.start):
            if cell.start not in ('none', 'published', 'recipe'):
                raise InputError(f'suite {path}: {cell.name} starts from {cell.start!r}: none, published, recipe, or a '
                                 'task of pretraining')
            yield cell
            continue
        seeds = pretrainings.get((cell.start, cell.arch, cell.method), {})
        # One pretraining may serve all seeds of what follows.
        needs = seeds.get(cell.seed) or (next(iter(seeds.values())) if len(seeds) == 1 else None)
        if needs is None:
            raise InputError(f'suite {path}: {cell.name} needs {cell.start}/{cell.arch}/{cell.method}/{cell.seed}: add '
                             'that cell, or give start="published" or start="recipe"')
        yield replace(cell, needs=needs)
