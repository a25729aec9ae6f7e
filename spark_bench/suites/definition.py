"""A suite: the set of runs that a table of a paper is made of, read from a small config file."""

import itertools
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from spark_bench.configs import read_config
from spark_bench.errors import InputError, nearest, printable
from spark_bench.places import RESULTS, shipped
from spark_bench.records.schema import record_path
from spark_bench.records.store import load_all, recorded_suites, suite_folder
from spark_bench.suites.checks import STARTS, check_group, check_suite, find_recipe, make_table
from spark_bench.tables.parts import Table, TableSpec
from spark_bench.tables.suite import tables_of

SHIPPED = 'spark_bench/suites/shipped'


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
        options: further arguments of its kind of :class:`~spark_bench.runs.options.RunOptions`.
        overrides: dotted keys of the recipe to values.
        images: that the run computes in training, for estimates; None where unknown.
        gmacs: 10^9 multiply-adds an image in a forward pass, for estimates; None to count them.
        weight: expected seconds on a CPU core, for estimates and the bar of progress; None where unknown.
        needs: the cell of the pretraining that it starts from.
        tune: None, or ``tasks`` whose cells, of one seed, try values, and the ``metric`` that tells the best of them.
        trials: those cells, of the same architecture and method; the best lends this one its overrides, beside its own.
    """

    task: str
    arch: str
    method: str
    seed: int
    recipe: str
    data: str
    start: str = 'none'
    options: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    images: float | None = None
    gmacs: float | None = None
    weight: float | None = None
    needs: 'CellSpec | None' = None
    tune: dict[str, Any] | None = None
    trials: 'tuple[CellSpec, ...]' = ()

    @property
    def waits_for(self) -> 'tuple[CellSpec, ...]':
        """The cells that have to be done before this one starts."""
        return (*((self.needs,) if self.needs else ()), *self.trials)

    @property
    def name(self) -> str:
        """``task/arch/method/seed``, as ``--only`` matches it."""
        return f'{self.task}/{self.arch}/{self.method}/{self.seed}'

    @property
    def kind(self) -> str:
        """The task without its variant."""
        return self.task.partition('_')[0]

    def record_path(self, suite: str, results: Path | str) -> Path:
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
        tables: tuple of :class:`~spark_bench.tables.parts.TableSpec`.
        beside: name of a suite whose measured table is shown after these, or ''.
    """

    name: str
    title: str
    note: str
    data: dict[str, str]
    cells: tuple[CellSpec, ...]
    tables: tuple[TableSpec, ...]
    beside: str = ''


def shipped_suites() -> list[str]:
    """Names of the suites that come with the project."""
    return sorted(path.stem for path in shipped(SHIPPED).glob('*.py') if not path.stem.startswith('_'))


def load_suite(name: Path | str, arch: str | None = None) -> Suite:
    """Read a suite.

    Args:
        name: of a shipped suite, or the path of a config file, whose stem is then the name of the records.
        arch: in place of every architecture of the suite.

    Raises:
        InputError: one line naming the file and the key that is wrong.
    """
    path = Path(name) if str(name).endswith('.py') else shipped(f'{SHIPPED}/{str(name).replace("-", "_")}.py')
    if not path.is_file():
        beside = next(
            (f'{stem}.py' for stem in (name, str(name).replace('-', '_')) if Path(f'{stem}.py').is_file()), None
        )
        close = f'is it {beside}?' if beside else nearest(name, shipped_suites())
        raise InputError(
            f'no suite {printable(repr(name))}{f" ({close})" * bool(close)}: choose one of '
            f'{", ".join(shipped_suites())}, or give the path of a .py file'
        )
    cfg = read_config(path, 'suite', import_custom_modules=False).to_dict()
    check_suite(path, cfg)
    data = cfg.get('data', {})
    cells = [cell for number, group in enumerate(cfg['cells']) for cell in _expand(path, number, group, data, arch)]
    names = [cell.name for cell in cells]
    twice = next((cell for cell in names if names.count(cell) > 1), None)
    if twice and arch:
        raise InputError(
            f'--arch {arch}: the suite {path.stem} compares architectures, and {twice} would be several of its cells: '
            'leave it away'
        )
    if twice:
        raise InputError(f'suite {path} has the cell {twice} twice: give one of them another seed or task')
    stem = path.stem.replace('_', '-')
    tables = tuple(
        make_table(f'suite {path}, tables[{number}]', entry) for number, entry in enumerate(cfg.get('tables', ()))
    )
    if arch:
        tables = tuple(_of_arch(table, arch) for table in tables)
    if len({table.name for table in tables}) < len(tables):
        raise InputError(f'suite {path} has two tables of one name, which would be one file: rename one')
    return Suite(
        stem,
        cfg.get('title', stem),
        cfg.get('note', ''),
        data,
        _in_order(list(_with_trials(path, list(_connect(path, cells))))),
        tables,
        cfg.get('beside', ''),
    )


def find_suite(word: Path | str, results: Path | str) -> tuple[str, tuple[TableSpec, ...] | None]:
    """The suite that somebody names, whose records are there: ``(name of its records, its tables or None)``.

    Args:
        word: path of the suite's file; or its name, in which - and _ are the same where one alone has records.
        results: root of the records.

    Raises:
        InputError: for a file that cannot be read.
    """
    if str(word).endswith('.py'):
        suite = load_suite(word)
        return suite.name, suite.tables or None
    name = str(word)
    known = {*recorded_suites(results), *(stem.replace('_', '-') for stem in shipped_suites())}
    alike = [each for each in known if each.replace('_', '-') == name.replace('_', '-')]
    if name not in known and len(alike) == 1:
        [name] = alike
    return name, specs_of(name)


@lru_cache(maxsize=16)
def specs_of(name: str) -> tuple[TableSpec, ...] | None:
    """The tables of a shipped suite, as its records name it; None for any other, or where it lists none."""
    if name.replace('-', '_') not in shipped_suites():
        return None
    return load_suite(name.replace('-', '_')).tables or None


def committed_tables(name: str) -> tuple[Table, ...]:
    """The tables of a shipped suite from the records that the project itself keeps; none where those are not there.

    They are beside the packages in a clone, and not part of an installed copy.
    """
    results = shipped(RESULTS)
    if not suite_folder(results, 'measured', name).is_dir():
        return ()
    return tables_of(load_all(results, name, curves=False), specs_of(name))


def _expand(path, number, group, data, arch):
    """The cells of one group: every architecture × method × seed of it."""
    where = f'suite {path}, cells[{number}]'
    check_group(where, group, data)
    archs = [group['arch']] if isinstance(group['arch'], str) else group['arch']
    told = ('images', 'options', 'overrides', 'tune')
    if arch in (None, *archs):
        told += ('gmacs', 'weight')  # of these architectures
    shared = {key: group[key] for key in told if key in group}
    archs = [arch] if arch else archs
    for name, method, seed in itertools.product(archs, group['methods'], group.get('seeds', [0])):
        recipe = find_recipe(where, group['recipe'], name)
        starts = not group['task'].startswith('pretrain') and method != 'scratch'
        start = group.get('start', 'pretrain') if starts else 'none'
        yield CellSpec(group['task'], name, method, seed, recipe, group['data'], start, **shared)


def _of_arch(table, arch):
    """The table of one architecture in place of those that it lists."""
    pairs = table.pairs and tuple(dict.fromkeys((arch, method) for _, method in table.pairs))
    return replace(table, archs=table.archs and (arch,), pairs=pairs)


def _in_order(cells):
    """The cells, each behind those that it waits for, which it knows as they stand here."""
    known, placed = {cell.name: cell for cell in cells}, {}

    def place(cell):
        if cell.name not in placed:
            for other in cell.waits_for:
                place(known[other.name])
            needs = cell.needs and placed[cell.needs.name]
            placed[cell.name] = replace(cell, needs=needs, trials=tuple(placed[trial.name] for trial in cell.trials))

    for cell in cells:
        place(cell)
    return tuple(placed.values())


def _connect(path, cells):
    """Give each cell that starts from a pretraining the cell of it; pretrainings first."""
    pretrainings = {}
    for cell in cells:
        if cell.kind == 'pretrain':
            pretrainings.setdefault((cell.task, cell.arch, cell.method), {})[cell.seed] = cell
    for cell in sorted(cells, key=lambda cell: cell.kind != 'pretrain'):
        if cell.start in STARTS:
            yield cell
            continue
        seeds = pretrainings.get((cell.start, cell.arch, cell.method), {})
        # One pretraining may serve all seeds of what follows.
        needs = seeds.get(cell.seed) or (next(iter(seeds.values())) if len(seeds) == 1 else None)
        if needs is None:
            raise InputError(
                f'suite {path}: {cell.name} needs {cell.start}/{cell.arch}/{cell.method}/{cell.seed}: add '
                'that cell, or give start="published" or start="recipe"'
            )
        yield replace(cell, needs=needs)


def _with_trials(path, cells):
    """The cells, those that are tuned last, each with the cells that try values for it."""
    tried = {}
    for cell in cells:
        if not cell.tune:
            tried.setdefault((cell.task, cell.arch, cell.method), []).append(cell)
    for cell in sorted(cells, key=lambda cell: cell.tune is not None):
        tasks = cell.tune['tasks'] if cell.tune else ()
        absent = next((task for task in tasks if (task, cell.arch, cell.method) not in tried), None)
        if absent:
            raise InputError(
                f'suite {path}: {cell.name} is tuned by {absent}/{cell.arch}/{cell.method}: add that cell, or take '
                f'{absent} out of tune'
            )
        trials = [tried[task, cell.arch, cell.method] for task in tasks]
        several = next((seeds for seeds in trials if len(seeds) > 1), None)
        if several:
            raise InputError(
                f'suite {path}: {cell.name} is tuned by {several[0].name} and {several[1].name}: give a trial one seed'
            )
        yield replace(cell, trials=tuple(trial for (trial,) in trials))
