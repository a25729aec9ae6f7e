"""Cells as jobs of a cluster: what Slurm is asked for, and jobs that are preempted, stopped or fail."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from small_suite import ROOT, SUITE, TUNED, outcome, spark_bench, start, words

from spark_bench import commands
from spark_bench.suites.definition import load_suite
from spark_bench.suites.plan import Places, build_cells, fitting_processes
from spark_bench.suites.status import state_of

# Stand in for Slurm: keep what was submitted, and tell what is queued.
SBATCH = """#!/usr/bin/env bash
[ -z "$REFUSES" ] || { echo "sbatch: error: invalid partition specified: $REFUSES" >&2; exit 1; }
number=$(ls "$SUBMITTED" | wc -l)
cp "${@: -1}" "$SUBMITTED/$(printf %02d $number).sh"
echo "Submitted batch job $((100 + number))"
"""
SQUEUE = """#!/usr/bin/env bash
echo "$QUEUED"
"""


@pytest.fixture
def slurm(tmp_path):
    """Function that runs ``spark-bench`` with words and variables; returns the outcome and the scripts so far."""
    for name in ('bin', 'submitted'):
        (tmp_path / name).mkdir()
    for name, text in (('sbatch', SBATCH), ('srun', SBATCH), ('squeue', SQUEUE)):
        path = tmp_path / 'bin' / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(arguments, **variables):
        done = spark_bench(
            arguments,
            PATH=f'{tmp_path / "bin"}:{os.environ["PATH"]}',
            SUBMITTED=str(tmp_path / 'submitted'),
            **variables,
        )
        return done, [path.read_text() for path in sorted((tmp_path / 'submitted').iterdir())]

    return run


def submitted(done):
    """From the name of each cell to the id of its job, as the command printed them."""
    return {name: job for job, name in re.findall(r'^(\d+(?:_\d+)?)  (\S+)', done.stdout, re.M)}


def directives(script):
    return dict(re.findall(r'^#SBATCH --([a-z-]+)(?:=(.*))?$', script, re.M))


def test_pretrainings_are_an_array_and_each_transfer_waits_for_its_own_alone(slurm, tmp_path):
    arguments = [
        'run',
        'ablation',
        '--data-root',
        f'imagenet={tmp_path}',
        '--work-dir',
        str(tmp_path / 'work'),
        '--results',
        str(tmp_path / 'results'),
        '--cluster',
        'slurm',
        '--gpus',
        '16',
        '--partition',
        'vision',
        '--hours',
        '12',
        '--slurm',
        'account=lab',
        '--jobs',
        '3',
    ]
    done, scripts = slurm(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    asked = [directives(script) for script in scripts]
    for options in asked:
        expected = {
            'nodes': '2',
            'ntasks-per-node': '8',
            'gpus-per-node': '8',
            'cpus-per-task': '8',
            'requeue': '',
            'partition': 'vision',
            'time': '720',
            'account': 'lab',
            'signal': 'USR2@90',
            'open-mode': 'append',
        }
        assert expected.items() <= options.items()
    assert asked[0]['array'] == '0-6%3' and 'dependency' not in asked[0] and len(asked) == 8
    jobs = submitted(done)
    assert len(jobs) == 14
    for options, job in zip(asked[1:], range(101, 108), strict=True):
        name = next(name for name, number in jobs.items() if number == str(job))
        pretraining = jobs[name.replace('classification', 'pretrain')]
        assert options['dependency'] == f'afterok:{pretraining}' and options['kill-on-invalid-dep'] == 'yes'
    for script in scripts:
        assert '--kill-on-bad-exit=1' in script
        subprocess.run(['bash', '-n'], input=script, text=True, check=True)


def test_what_needs_no_pretraining_waits_for_none_and_seeds_share_an_array(slurm, suite, images, tmp_path):
    done, scripts = slurm(words(suite, images, tmp_path, '--cluster', 'slurm', '--gpus', '2'))
    assert done.returncode == 0, done.stderr[-3000:]
    asked = [directives(script) for script in scripts]
    assert [(options.get('array'), options.get('dependency')) for options in asked] == [
        ('0-1%2', None),
        ('0-1%2', None),
        ('0-1%2', 'afterok:100_0'),
        ('0-1%2', 'afterok:100_1'),
    ]
    assert submitted(done)['classification/test_resnet/scratch/1'] == '101_1'


def test_recorded_cells_are_not_submitted_and_what_starts_from_them_begins_at_once(
    slurm, finished, suite, images, tmp_path
):
    folder, _ = finished
    record = 'results/measured/small/classification/test_resnet/spark/0.json'
    for path in [*folder.glob('results/measured/small/pretrain/**/*.json'), folder / record]:
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    encoder = Path('work/pretrain/test_resnet/spark/0/encoder.safetensors')
    (tmp_path / encoder).parent.mkdir(parents=True)
    (tmp_path / encoder).write_bytes((folder / encoder).read_bytes())
    done, scripts = slurm(words(suite, images, tmp_path, '--cluster', 'slurm', '--gpus', '1'))
    assert done.returncode == 0 and '2 of 8 cells are recorded and not submitted' in done.stdout
    jobs = submitted(done)
    # The encoder of no_sparse is gone: it is pretrained again.
    assert 'pretrain/test_resnet/no_sparse/0' in jobs and 'pretrain/test_resnet/spark/0' not in jobs
    assert 'classification/test_resnet/spark/0' not in jobs and len(jobs) == 6
    waiting = [directives(script)['dependency'] for script in scripts if '--dependency' in script]
    assert waiting == [f'afterok:{jobs["pretrain/test_resnet/no_sparse/0"]}']


def test_what_is_queued_is_not_submitted_again(slurm, suite, images, tmp_path):
    arguments = words(suite, images, tmp_path, '--cluster', 'slurm', '--gpus', '1')
    first, _ = slurm(arguments)
    jobs = submitted(first)
    again, scripts = slurm(arguments, QUEUED='\n'.join(jobs.values()))
    assert again.returncode == 0 and len(scripts) == 4 and again.stdout.count('(submitted before)') == 8
    shown = spark_bench(words(suite, images, tmp_path, '--status')).stdout
    name = 'classification/test_resnet/scratch/1'
    assert re.search(rf'{name} +to do .*job {jobs[name]} ', shown)
    # All but a pretraining have left the queue, without a record.
    kept = jobs['pretrain/test_resnet/spark/0']
    third, scripts = slurm(arguments, QUEUED=f'7\n{kept}\n')
    assert third.stdout.count('(submitted before)') == 1 and len(submitted(third)) == 8
    assert [directives(script).get('dependency') for script in scripts[4:]] == [
        None,
        None,
        f'afterok:{kept}',
        f'afterok:{submitted(third)["pretrain/test_resnet/no_sparse/0"]}',
    ]


def test_what_slurm_refuses_is_one_line_with_its_reason(slurm, suite, images, tmp_path):
    done, scripts = slurm(words(suite, images, tmp_path, '--cluster', 'slurm', '--partition', 'moon'), REFUSES='moon')
    assert done.returncode == 2 and not scripts
    # What sbatch itself prints, then ours.
    _, told = done.stderr.splitlines()
    assert 'invalid partition specified: moon' in told and '--partition' in told


@pytest.mark.parametrize(
    'extra, named',
    [
        (('--cluster', 'slurm'), '--cluster slurm'),
        (('--partition', 'vision'), '--partition'),
        (('--slurm', 'qos=long'), '--slurm'),
        (('--cluster', 'local', '--gpus', '2'), '--gpus 2'),
        (('--cluster', 'slurm', '--gpus', '12'), '--gpus 12'),
    ],
)
def test_a_cluster_that_is_not_there_and_options_without_use_are_refused(
    suite, images, tmp_path, capsys, monkeypatch, extra, named
):
    monkeypatch.setenv('PATH', '/nowhere')
    assert commands.main(words(suite, images, tmp_path, *extra)) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and named in error


def test_processes_divide_the_batch_that_a_cell_has_and_fill_nodes(tmp_path):
    def fit(batch, most, per_node=None):
        path = tmp_path / f'batch{batch}.py'
        path.write_text(SUITE.replace("'global_batch': 8", f"'global_batch': {batch}"))
        suite = load_suite(str(path))
        cells = build_cells(suite, suite.cells, Places({'images': '.'}, str(tmp_path), str(tmp_path)))
        return fitting_processes([cell for cell in cells if cell.task == 'classification'], most, per_node)

    assert [fit(48, 16), fit(48, 16, 8), fit(9, 2), fit(9, 8), fit(7, 7), fit(4096, 32, 8)] == [16, 16, 1, 3, 7, 32]
    assert [fit(24, 16), fit(24, 16, 8), fit(20, 16, 8)] == [12, 8, 5]


@pytest.mark.slow
def test_a_preempted_job_goes_on_from_its_checkpoint_to_the_same_record(images, tmp_path):
    """submitit's protocol: SIGUSR2 to the task, which leaves the job to do behind and is started again."""
    path = tmp_path / 'small.py'
    # A recipe whose augmentation draws an image at a time, in workers.
    path.write_text(
        SUITE.replace('demo_pretrain', 'spark_resnet50_1600e')
        .replace('dict(threads=1)', 'dict(threads=1, workers=1)', 1)
        .replace("'train_cfg.max_epochs': 2, 'global_batch'", "'train_cfg.max_epochs': 40, 'global_batch'", 1)
    )
    folders = [tmp_path / name for name in ('disturbed', 'undisturbed')]
    disturbed, undisturbed = (
        start(
            [*words(path, images, folder), '--cluster', 'local', '--only', 'pretrain/*/spark/0'],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for folder in folders
    )
    task = preempt(disturbed, folders[0])
    for process in (disturbed, undisturbed):
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    assert not task.is_running()
    ours, others = map(outcome, folders)
    assert len(ours) == 1 and ours == others
    log = '\n'.join(path.read_text() for path in (folders[0] / 'work/jobs').glob('*_log.out'))
    assert [log.count(text) for text in ('is preempted', 'Calling checkpoint method', 'Requeued job')] == [1, 1, 1]
    runs = list((folders[0] / 'work/pretrain/test_resnet/spark/0').glob('*/*.log'))
    assert any('resumed epoch' in path.read_text() for path in runs)


def preempt(process, folder):
    """Wait until the pretraining has a checkpoint, then do as Slurm does, which tells a task and all that it started.

    Returns:
        the task.
    """
    deadline = time.monotonic() + 120
    while not list(folder.glob('work/pretrain/*/spark/0/epoch_[2-9].pth')):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    task = next(
        one for one in psutil.Process(process.pid).children(recursive=True) if 'submitit.core._submit' in one.cmdline()
    )
    loaders = task.children(recursive=True)
    assert loaders
    for number in (signal.SIGTERM, signal.SIGUSR2):
        for one in (*loaders, task):
            if one.is_running():
                one.send_signal(number)
        time.sleep(2)
        assert number == signal.SIGUSR2 or task.is_running()
    return task


@pytest.mark.slow
def test_jobs_on_this_machine_give_the_records_of_the_runner_and_tell_what_failed(finished, suite, images, tmp_path):
    folder, _ = finished
    # A folder stands where the encoder of one pretraining has to be written.
    (tmp_path / 'work/pretrain/test_resnet/no_sparse/0/encoder.safetensors').mkdir(parents=True)
    done = spark_bench(
        words(suite, images, tmp_path, '--cluster', 'local', '--jobs', '2', '--only', '*/spark/0', '*/no_sparse/0')
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith('spark-bench: error: ')]
    assert done.returncode == 1 and len(errors) == 2
    assert 'pretrain/test_resnet/no_sparse/0' in errors[0] and 'not started' in errors[1]
    small = load_suite(str(suite))
    places = Places({'images': str(images)}, str(tmp_path / 'work'), str(tmp_path / 'results'))
    failed = state_of(
        next(cell for cell in small.cells if cell.name == 'pretrain/test_resnet/no_sparse/0'), small, places
    )
    assert failed.word == 'failed' and 'encoder.safetensors cannot be written: Is a directory' in failed.note
    ours, others = outcome(tmp_path), outcome(folder)
    assert len(ours) == 2 and all(value == others[key] for key, value in ours.items())


SCONTROL = """#!/usr/bin/env bash
[ "$*" = "show hostnames node[7-8]" ] && printf 'localhost\\nelsewhere\\n'
"""
TASK = """
import json, os, sys
from spark_bench.suites.cluster import ClusterJob
ClusterJob('classification', json.loads(sys.argv[1]), 2)()
print(os.environ['MASTER_ADDR'], os.environ['MASTER_PORT'], os.environ['RANK'], os.environ['WORLD_SIZE'])
"""


def run_tasks(options, folder):
    """Two tasks of one job as srun starts them on two nodes; returns their exit statuses and what they printed."""
    (folder / 'bin').mkdir(exist_ok=True)
    path = folder / 'bin/scontrol'
    path.write_text(SCONTROL)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    tasks = []
    for rank in range(2):
        slurm = {
            'SLURM_PROCID': str(rank),
            'SLURM_NTASKS': '2',
            'SLURM_LOCALID': '0',
            'SLURM_JOB_ID': '1000123',
            'SLURM_JOB_NODELIST': 'node[7-8]',
            'PATH': f'{folder / "bin"}:{os.environ["PATH"]}',
            'PYTHONPATH': str(ROOT),
        }
        tasks.append(
            subprocess.Popen(
                [sys.executable, '-c', TASK, json.dumps(options)],
                env={**os.environ, **slurm},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    printed = [task.communicate(timeout=120)[0] for task in tasks]
    return [task.returncode for task in tasks], printed


@pytest.mark.slow
def test_the_tasks_of_a_job_train_together_and_meet_at_its_first_node(suite, images, tmp_path):
    small = load_suite(str(suite))
    places = Places({'images': str(images)}, str(tmp_path / 'work'), str(tmp_path / 'results'))
    cell = next(cell for cell in build_cells(small, small.cells, places) if cell.name.endswith('scratch/0'))
    statuses, printed = run_tasks(cell.options, tmp_path)
    assert statuses == [0, 0], printed
    assert [text.splitlines()[-1] for text in printed] == [f'localhost 10123 {rank} 2' for rank in range(2)]
    assert 'Distributed training: True' in printed[0] and len(outcome(tmp_path)) == 1
    # What fails is left in the folder, once.
    (tmp_path / 'results/measured').rename(tmp_path / 'old')
    statuses, printed = run_tasks({**cell.options, 'data_root': str(tmp_path / 'no where')}, tmp_path)
    assert 0 not in statuses
    assert 'no where does not exist' in (Path(cell.options['work_dir']) / 'failure.txt').read_text()


def test_what_takes_values_from_others_is_submitted_when_these_have_records(slurm, images, tmp_path):
    path = tmp_path / 'small.py'
    path.write_text(TUNED)
    arguments = words(path, images, tmp_path, '--cluster', 'slurm', '--gpus', '1')
    first, _ = slurm(arguments)
    trials = {f'classification_{name}/test_resnet/scratch/0' for name in ('low', 'high')}
    assert first.returncode == 0 and submitted(first).keys() == trials
    assert '2 cells take values from others that have no record yet' in first.stdout
    assert spark_bench(words(path, images, tmp_path, '--only', *trials)).returncode == 0
    second, scripts = slurm(arguments)
    assert submitted(second).keys() == {f'classification/test_resnet/scratch/{seed}' for seed in (0, 1)}
    assert 'no record yet' not in second.stdout
    # The suite is edited behind its records: neither are they taken for its own nor is a value chosen by them.
    path.write_text(TUNED.replace("'train_cfg.max_epochs': 2", "'train_cfg.max_epochs': 3"))
    third, scripts_after = slurm(arguments)
    assert third.returncode == 2 and len(scripts_after) == len(scripts)
    record = 'results/measured/small/classification_low/test_resnet/scratch/0.json'
    assert re.search(rf'{record} was measured with another configuration \(.*max_epochs 2, now 3', third.stderr)
