"""When the package enters OpenMMLab's registries: where mmengine is loaded, or on request; whatever the program."""

import os
import subprocess
import sys

import pytest

LIGHT = 'print(not {"torch", "mmengine", "mmcv"} & set(sys.modules))'
REGISTERED = 'from mmengine.registry import MODELS; print("SparKTimm" in MODELS)'


def python(program, folder='.'):
    done = subprocess.run(
        [sys.executable, '-c', program],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': os.getcwd()},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize('name', ['spark-bench', 'train.py', '-m', ''])
def test_alone_the_package_loads_nothing_heavy(name):
    assert python(f'import sys; sys.argv[0] = {name!r}; import spark_bench; {LIGHT}') == 'True'


@pytest.mark.parametrize(
    'imports, registered',
    [('mmengine, spark_bench', True), ('spark_bench.registration', True), ('spark_bench, mmengine', False)],
)
def test_it_registers_where_mmengine_is_loaded_or_on_request(imports, registered):
    assert python(f'import {imports}; {REGISTERED}') == str(registered)


def test_stock_openmmlab_sees_the_backbone_through_custom_imports(tmp_path):
    program = (
        'from mmengine.config import Config\nfrom mmdet.registry import MODELS\nimport torch\n'
        'Config.fromfile("c.py")\n'
        'net = MODELS.build(dict(type="SparKTimm", arch="test_convnext"))\n'
        'print([tuple(m.shape[1:]) for m in net(torch.zeros(1, 3, 64, 64))])'
    )
    (tmp_path / 'c.py').write_text("custom_imports = dict(imports=['spark_bench'])")
    assert python(program, tmp_path) == '[(24, 16, 16), (32, 8, 8), (48, 4, 4), (64, 2, 2)]'
