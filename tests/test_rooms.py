"""The order of the rooms, as ARCHITECTURE.md draws it: imports run downwards, and nothing grows beyond a screen."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up: a room imports those before it, and none behind it. Files of one line stand beside each other.
FLOORS = (
    'pretrain.errors',
    'pretrain.toolchain',
    'pretrain.ablations',
    'pretrain.networks',
    'pretrain.masking',
    'pretrain.sparse',
    'pretrain.encoder',
    'pretrain.densify',
    'pretrain.upsampling',
    'pretrain.decoder',
    'pretrain.spark',
    'pretrain.visualize',
    'pretrain',
    'spark_bench.errors',
    'spark_bench.places',
    'spark_bench.locks',
    'spark_bench.files',
    'spark_bench.compatibility',
    'spark_bench.configs',
    'spark_bench.devices',
    'spark_bench.operators',
    'spark_bench.checkpoints',
    'spark_bench.records',
    'spark_bench.data',
    'spark_bench.models',
    'spark_bench.training',
    'spark_bench.evaluation',
    'spark_bench.probes',
    'spark_bench.registration',
    'spark_bench.operators.__main__',
    'spark_bench',
    'spark_bench.runs',
    'spark_bench.profiling',
    'spark_bench.tables',
    'spark_bench.report',
    'spark_bench.suites',
    'spark_bench.visualize',
    'spark_bench.commands',
    'spark_bench.__main__',
)
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_FLOORS = 350, 50, 5


@cache
def modules():
    """From dotted name to path, of the code."""
    paths = [
        path
        for root in ('pretrain', 'spark_bench')
        for path in (ROOT / root).rglob('*.py')
        if 'configs' not in path.parts and 'shipped' not in path.parts
    ]
    return {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path for path in paths}


@cache
def imported(name):
    """The modules of this project that a module imports, within functions too; not those for a type checker alone."""
    found, waiting = set(), [ast.parse(modules()[name].read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f'{node.module}.{alias.name}'
                found.add(inner if inner in modules() else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif not (isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test)):
            waiting += ast.iter_child_nodes(node)
    return {other for other in found if other in modules() and other != name}


def room(name):
    """The longest entry of FLOORS that a module belongs to."""
    return max((floor for floor in FLOORS if f'{name}.'.startswith(f'{floor}.')), key=len)


def test_every_module_has_a_room():
    packages = {name for name in modules() if room(name) in ('pretrain', 'spark_bench')}
    assert packages == {'pretrain', 'spark_bench'}, packages


@pytest.mark.parametrize('floor', FLOORS)
def test_imports_run_downwards(floor):
    upwards = [
        (name, other)
        for name in modules()
        if room(name) == floor
        for other in imported(name)
        if FLOORS.index(room(other)) > FLOORS.index(floor)
    ]
    assert upwards == []


def floors(name):
    """How many modules of one folder stand on each other below a module, with it."""
    folder = modules()[name].parent
    within = [
        other
        for other in imported(name)
        if modules()[other].parent == folder and modules()[other].name != '__init__.py'
    ]
    return 1 + max(map(floors, within), default=0)


def test_no_room_is_deeper_than_five_floors():
    deep = {name: floors(name) for name in modules() if floors(name) > MOST_FLOORS}
    assert deep == {}


def test_files_and_functions_fit_on_screens():
    long = []
    for name, path in modules().items():
        text = path.read_text()
        long += [name] if text.count('\n') > MOST_LINES else []
        long += [
            f'{name}.{node.name}'
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION
        ]
    assert long == []
