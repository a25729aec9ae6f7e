"""Which GPUs the cells of a suite get: none is needed here."""

import os
import subprocess
import sys

import pytest

from spark_bench.errors import InputError
from spark_bench.suites.gpus import devices_of, fitting_jobs


def test_cells_side_by_side_get_gpus_of_their_own(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert [devices_of(slot, 2) for slot in (0, 1)] == ['0,1', '2,3']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6,7')
    assert [devices_of(slot, 1) for slot in (0, 2)] == ['4', '7']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert devices_of(3, 1) == '', 'a GPU that was hidden stays so'


@pytest.mark.parametrize(
    'hidden, present, asked, gpus, jobs',
    [
        (None, 0, None, 1, 16),  # a core each, where there is no GPU
        (None, 1, None, 1, 1),
        (None, 4, None, 2, 2),
        (None, 1, None, 4, None),
        (None, 1, 2, 1, None),
        ('', 8, None, 1, 16),
        ('0', 8, None, 1, 1),
        ('0', 8, 2, 1, None),
        ('0,0,0', 1, None, 1, 3),
        ('4,6,7', 8, 2, 2, None),
        ('0,1,0,1', 2, None, 2, 2),
    ],
)
def test_no_cell_is_left_without_a_gpu_where_others_have_one(hidden, present, asked, gpus, jobs, monkeypatch):
    monkeypatch.setattr('torch.cuda.device_count', lambda: present)
    if hidden is None:
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    else:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
    if jobs is None:
        with pytest.raises(InputError, match='GPUs, .*: lower --jobs or --gpus'):
            fitting_jobs(asked, 16, gpus)
    else:
        assert fitting_jobs(asked, 16, gpus) == jobs


def test_the_processes_of_a_cell_are_not_given_one_gpu_twice(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,0,1,1')
    with pytest.raises(InputError, match='gives the 2 processes of a cell 0, 0, one GPU twice: .* lower --gpus'):
        fitting_jobs(None, 16, 2)


@pytest.mark.parametrize('given, seen', [('3,3,1', '3,1'), ('2', '2'), ('', ''), (None, None)])
def test_a_gpu_that_cells_share_is_seen_by_the_process_that_they_are_forked_from(given, seen):
    """torch sees no GPU at all where one is named twice, and mmengine's import settles on which device to train."""
    script = (
        'import os\nfrom spark_bench.suites.runner import in_server, start_server\n'
        f'in_server(start_server(), exec, "import os; assert os.environ.get(\'CUDA_VISIBLE_DEVICES\') == {seen!r}")\n'
        f'assert os.environ.get("CUDA_VISIBLE_DEVICES") == {given!r}\n'
    )
    environment = {name: value for name, value in os.environ.items() if name != 'CUDA_VISIBLE_DEVICES'}
    environment |= {} if given is None else {'CUDA_VISIBLE_DEVICES': given}
    subprocess.run([sys.executable, '-c', script], env=environment, check=True)
