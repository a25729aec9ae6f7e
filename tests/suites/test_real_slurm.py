"""A suite on a real Slurm of one node, started here: ``apt install slurm-wlm munge``."""

import os
import shutil
import signal
import socket
import subprocess
import time

import psutil
import pytest
from small_suite import SUITE, outcome, spark_bench, words

from spark_bench.records import load_all

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'scontrol', 'squeue')
CONF = """
ClusterName=here
SlurmctldHost=localhost
AuthType=auth/munge
AuthInfo=socket={munge}/socket
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={control}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/control.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/control.log
SlurmdLogFile={folder}/node.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 Port={node} CPUs=4 CoresPerSocket=4 RealMemory=4000 Gres=gpu:4
PartitionName=all Nodes=localhost Default=YES State=UP
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.5)


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    """The environment in which Slurm's commands find this test's own controller."""
    path = f'{os.environ["PATH"]}:/usr/sbin'
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f'no {", ".join(missing)} on this machine: apt install slurm-wlm munge')
    folder = tmp_path_factory.mktemp('slurm')
    for name in ('state', 'spool', 'munge'):
        (folder / name).mkdir(mode=0o755)
    key = folder / 'munge/key'
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    (folder / 'slurm.conf').write_text(
        CONF.format(
            folder=folder,
            munge=folder / 'munge',
            user=psutil.Process().username(),
            control=free_port(),
            node=free_port(),
            host=socket.gethostname().split('.')[0],
        )
    )
    # Four devices that any machine has stand for the GPUs: only their number matters to Slurm.
    devices = ('null', 'zero', 'full', 'tty')
    (folder / 'gres.conf').write_text(''.join(f'Name=gpu File=/dev/{name}\n' for name in devices))
    environment = {**os.environ, 'PATH': path, 'SLURM_CONF': str(folder / 'slurm.conf'), 'CUDA_VISIBLE_DEVICES': ''}
    munge = [
        f'--{name}={folder}/munge/{name.partition("-")[0]}'
        for name in ('socket', 'key-file', 'pid-file', 'log-file', 'seed-file')
    ]
    daemons = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in (
            ['munged', '--foreground', '--force', *munge],
            ['slurmctld', '-D'],
            ['slurmd', '-D', '-N', 'localhost'],
        )
    ]
    try:
        until(
            lambda: ask(environment, 'sinfo', '--noheader', '--format=%t').startswith('idle'),
            60,
            lambda: ''.join(log.read_text()[-2000:] for log in folder.glob('*.log')),
        )
        yield environment
    finally:
        ask(environment, 'scancel', '--user', psutil.Process().username())
        for daemon in reversed(daemons):
            for process in [*psutil.Process(daemon.pid).children(recursive=True), daemon]:
                process.send_signal(signal.SIGKILL)
            daemon.wait(20)


def ask(environment, *command):
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False).stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_jobs_that_slurm_stops_end_with_the_records_of_torchrun(slurm, images, tmp_path):
    suite = tmp_path / 'small.py'
    text = SUITE.replace("'train_cfg.max_epochs': 2, 'train_data", "'train_cfg.max_epochs': 40, 'train_data")
    assert text != SUITE
    suite.write_text(text)
    here, there = tmp_path / 'here', tmp_path / 'there'
    done = spark_bench(words(suite, images, here, '--gpus', '2', '--only', '*/spark/0', '*/scratch/0'))
    assert done.returncode == 0, done.stderr[-3000:]
    options = [
        '--cluster',
        'slurm',
        '--gpus',
        '2',
        '--gpus-per-node',
        '2',
        '--cpus-per-gpu',
        '1',
        '--hours',
        '1',
        '--only',
        '*/spark/0',
        '*/scratch/0',
    ]
    submitted = spark_bench(words(suite, images, there, *options), **slurm)
    assert submitted.returncode == 0, submitted.stderr[-3000:]
    first = next(
        line.split()[0] for line in submitted.stdout.splitlines() if line.endswith(' pretrain/test_resnet/spark/0')
    )
    logs = there / 'work/jobs'

    def told():
        return ask(slurm, 'squeue') + ''.join(path.read_text()[-1500:] for path in logs.glob('*.err'))

    # The one without pretraining does not wait for it.
    until(lambda: len(load_all(there / 'results', 'small')) == 1, 200, told)
    folder = there / 'work/pretrain/test_resnet/spark/0'
    for stop in (['scontrol', 'requeue', first], ['scancel', '--signal=USR2', first]):
        before = set(folder.glob('epoch_*.pth'))
        until(lambda before=before: set(folder.glob('epoch_*.pth')) - before, 200, told)
        ask(slurm, *stop)
        until(lambda: 'PENDING' in ask(slurm, 'scontrol', 'show', 'job', first), 60, told)
        # Slurm would wait for two minutes before it starts a job once more.
        ask(slurm, 'scontrol', 'update', f'JobId={first}', 'StartTime=now')
        until(lambda: 'RUNNING' in ask(slurm, 'scontrol', 'show', 'job', first), 60, told)
    assert 'Restarts=2' in ask(slurm, 'scontrol', 'show', 'job', first)
    until(lambda: len(load_all(there / 'results', 'small')) == 3, 400, told)
    assert outcome(there) == outcome(here) and len(outcome(here)) == 3
