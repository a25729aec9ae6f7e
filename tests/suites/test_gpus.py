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


def seen(present):
    """How many of a machine's GPUs torch sees, as CUDA has it: none where one is named twice."""
    given = os.environ.get('CUDA_VISIBLE_DEVICES')
    named = [] if given is None else [name for name in given.split(',') if name in map(str, range(present))]
    return present if given is None else len(named) * (len(named) == len(set(named)))


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
        ('-1', 8, 4, 1, 4),
        ('NoDevFiles', 0, None, 1, 16),
        ('0', 0, None, 1, 16),
    ],
)
def test_no_cell_is_left_without_a_gpu_where_others_have_one(hidden, present, asked, gpus, jobs, monkeypatch):
    monkeypatch.setattr('torch.cuda.device_count', lambda: seen(present))
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
    monkeypatch.setattr('torch.cuda.device_count', lambda: seen(2))
    with pytest.raises(InputError, match='gives the 2 processes of a cell 0, 0, one GPU twice: .* lower --gpus'):
        fitting_jobs(None, 16, 2)


@pytest.mark.parametrize('given', ['0,1', '0,0,1', '0, 1 '])
def test_gpus_that_are_not_there_are_given_to_no_cell(given, monkeypatch):
    """CUDA sees those before the first that is not there, and a cell that gets none trains on the CPU."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', given)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 1)
    with pytest.raises(InputError, match='names 2 GPUs, of which torch sees 1: name those that are there'):
        fitting_jobs(None, 16, 1)
    assert os.environ['CUDA_VISIBLE_DEVICES'] == given


SCRIPT = """
import os, sys, torch
torch.cuda.device_count = lambda: int(sys.argv[1])
from spark_bench.suites.runner import in_server, start_server
server = start_server()
in_server(server, exec, "import mmengine.device, torch; assert torch.cuda._is_in_bad_fork() == " + sys.argv[2])
"""


@pytest.mark.parametrize('gpus', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_cell_can_use_a_gpu(gpus, tmp_path):
    """Libraries ask for a GPU when they are loaded; torch uses none in a process that is forked thereafter."""
    (tmp_path / 'start.py').write_text(SCRIPT)
    # Started by import, as a command is: a spawned process loads the first one's script again.
    command = ['-c', f'import runpy; runpy.run_path({str(tmp_path / "start.py")!r})']
    environment = {name: value for name, value in os.environ.items() if name != 'CUDA_VISIBLE_DEVICES'}
    subprocess.run([sys.executable, *command, str(gpus), str(gpus == 0)], env=environment, check=True)
