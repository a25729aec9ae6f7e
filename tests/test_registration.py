"""When the package enters OpenMMLab's registries: where mmengine is loaded, or on request; whatever the program."""

import os
import subprocess
import sys

import pytest

LIGHT = 'print(not {"torch", "mmengine", "mmcv"} & set(sys.modules))'
REGISTERED = """
from mmengine.registry import MODELS
before = 'SparKTimm' in MODELS
import spark_bench.registration
print(before, 'SparKTimm' in MODELS)
"""


def python(program):
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': os.getcwd()}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize('name', ['spark-bench', 'train.py', '-m', ''])
def test_alone_the_package_loads_nothing_heavy(name):
    assert python(f'import sys; sys.argv[0] = {name!r}; import spark_bench; {LIGHT}') == 'True'


@pytest.mark.parametrize(
    'imports, before',
    [pytest.param('mmengine, spark_bench', True, marks=pytest.mark.slow), ('spark_bench, mmengine', False)],
)
def test_it_registers_where_mmengine_is_loaded_or_on_request(imports, before):
    assert python(f'import {imports}{REGISTERED}') == f'{before} True'
