"""What several processes of one cell share: no GPU and no cluster is needed here."""

import os

import pytest

from spark_bench.data.coco.dataset import CocoPredictions
from spark_bench.errors import InputError, ToldElsewhere
from spark_bench.suites import member
from spark_bench.suites.status import failure_of
from spark_bench.training import processes


@pytest.mark.parametrize('rank', ['0', '1'])
def test_what_one_process_alone_meets_is_told(rank, tmp_path, monkeypatch):
    """An image that its loader cannot read, say; the others are told that it is told elsewhere."""
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setattr(member, '_end_with', lambda parent: None)
    for error, told in (
        (ToldElsewhere(ValueError()), None),
        (InputError('img7.jpg cannot be read'), 'img7.jpg cannot be read'),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(member, 'run_task', fail)
        assert member.main('1', 'detection', f'{{"work_dir": "{tmp_path}"}}') == 1
        assert failure_of(tmp_path) == told


def test_predictions_of_several_processes_meet_in_the_work_directory(tmp_path):
    """mmengine's own place is the folder that the command is called from."""
    metric = CocoPredictions([1], str(tmp_path / 'predictions'), metric='bbox')
    assert metric.collect_dir == f'{tmp_path}/predictions.parts'


def test_jobs_that_share_a_node_have_ports_of_their_own(monkeypatch):
    ports = set()
    for job in ('4711', '4712'):
        known = {'PROCID': '0', 'NTASKS': '2', 'LOCALID': '0', 'JOB_ID': job}
        environment = {'MASTER_ADDR': 'localhost', **{f'SLURM_{name}': value for name, value in known.items()}}
        monkeypatch.setattr(os, 'environ', environment)
        processes._describe_slurm()
        ports.add(environment['MASTER_PORT'])
    assert len(ports) == 2
