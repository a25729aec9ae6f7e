"""Suites that are interrupted, killed or disturbed: what is left running, and what is said."""

import contextlib
import os
import signal
import subprocess
import time

import psutil
import pytest
from small_suite import SUITE, spark_bench, start, words

SLOW = pytest.mark.slow
ONE = ('--jobs', '1', '--only', 'pretrain/*/spark/0')


@pytest.fixture
def long_suite(tmp_path):
    """The small suite with a pretraining that does not end before it is interrupted."""
    path = tmp_path / 'small.py'
    path.write_text(
        SUITE.replace("{'train_cfg.max_epochs': 2, 'global_batch", "{'train_cfg.max_epochs': 5000, 'global_batch")
    )
    assert path.read_text() != SUITE
    return path


@pytest.fixture
def begin(long_suite, images, tmp_path):
    """Function that starts the long suite, with more words; what a failing test leaves running is killed."""
    started = []

    def run(*extra):
        started.append(
            start(
                [*words(long_suite, images, tmp_path), *ONE, *extra], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
        return started[-1]

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for_checkpoint(process, folder, patience_s=120):
    """Wait until the pretraining is well on its way; return the processes that work on it."""
    deadline = time.monotonic() + patience_s
    while not list(folder.glob('work/pretrain/*/spark/0/epoch_2.pth')):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    return psutil.Process(process.pid).children(recursive=True)


def left(processes, patience_s=10):
    """Those of ``processes`` that are still there after a while."""
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def is_cell(process):
    return 'spark_bench.suites.member' in process.cmdline()


@pytest.mark.parametrize('delay_s', [0.4, pytest.param(2, marks=SLOW)])
def test_ctrl_c_while_libraries_load_is_one_line(begin, delay_s):
    process = begin()
    deadline = time.monotonic() + 60
    while not psutil.Process(process.pid).children() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and output == 'spark-bench: error: interrupted: the same command continues\n'


@pytest.mark.parametrize(
    'number, times, whole_group, status, said',
    [
        (signal.SIGINT, 2, True, 130, 'interrupted'),
        pytest.param(signal.SIGTERM, 1, False, 143, 'terminated', marks=SLOW),
        pytest.param(signal.SIGINT, 1, True, 130, 'interrupted', marks=SLOW),
        pytest.param(signal.SIGKILL, 1, False, 137, '', marks=SLOW),
    ],
)
def test_a_runner_that_is_stopped_leaves_no_process(begin, tmp_path, number, times, whole_group, status, said):
    process = begin()
    working = wait_for_checkpoint(process, tmp_path)
    for _ in range(times):
        (os.killpg if whole_group else os.kill)(process.pid, number)
        time.sleep(0.05)
    output, _ = process.communicate(timeout=60)
    # As a shell sees it: a second Ctrl-C may find Python on its way out.
    assert (process.returncode if process.returncode >= 0 else 128 - process.returncode) == status
    assert output == (f'spark-bench: error: {said}: the same command continues\n' if said else '')
    assert working and not left(working)
    assert not (tmp_path / 'work/pretrain/test_resnet/spark/0/failure.txt').exists()


@SLOW
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_a_runner_that_is_stopped_ends_cells_of_several_processes(begin, tmp_path, number):
    process = begin('--gpus', '2')
    working = wait_for_checkpoint(process, tmp_path)
    assert sum(map(is_cell, working)) == 2
    process.send_signal(number)  # to the runner alone
    process.communicate(timeout=60)
    assert not left(working)


@pytest.mark.parametrize(
    'extra, victim',
    [
        pytest.param(
            (), lambda working: next(one for one in working if 'forkserver' in one.parent().cmdline()[-1]), marks=SLOW
        ),
        pytest.param(('--gpus', '2'), lambda working: next(filter(is_cell, working)), marks=SLOW),
        pytest.param(('--gpus', '2'), lambda working: next(filter(is_cell, working)).parent(), marks=SLOW),
    ],
    ids=['alone', 'one of two', 'torchrun'],
)
def test_a_cell_that_is_killed_fails_with_the_likely_reason_and_leaves_no_process(begin, tmp_path, extra, victim):
    process = begin(*extra)
    working = wait_for_checkpoint(process, tmp_path)
    victim(working).kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and 'Traceback' not in output
    assert output.splitlines()[-1].startswith('spark-bench: error: pretrain/test_resnet/spark/0: ')
    assert 'SIGKILL' in output and 'memory' in output and 'log.txt' in output
    assert not left(working)


@SLOW
def test_a_second_runner_neither_disturbs_the_first_nor_calls_its_cell_failed(begin, long_suite, images, tmp_path):
    first = begin()
    wait_for_checkpoint(first, tmp_path)
    second = spark_bench([*words(long_suite, images, tmp_path), *ONE])
    assert second.returncode == 1 and 'another process is running' in second.stderr
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    shown = spark_bench([*words(long_suite, images, tmp_path), *ONE[2:], '--status']).stdout
    assert 'broken off' in shown and 'failed' not in shown


def test_every_failure_is_listed_also_where_nothing_succeeded(long_suite, images, tmp_path):
    (tmp_path / 'work').write_text('a file where the folder should be')
    done = spark_bench([*words(long_suite, images, tmp_path), '--only', '*/0'])
    errors = [line for line in done.stderr.splitlines() if line.startswith('spark-bench: error: ')]
    assert done.returncode == 1 and len(errors) == 5 and 'Traceback' not in done.stderr
    assert sum('cannot be written (Not a directory): give another --work-dir' in line for line in errors) == 3
    assert sum('not started: pretrain/' in line for line in errors) == 2


def test_a_data_set_that_is_not_there_is_refused_before_anything_runs(long_suite, tmp_path):
    done = spark_bench(words(long_suite, tmp_path / 'no where', tmp_path))
    assert done.returncode == 2 and done.stdout == '' and not (tmp_path / 'work').exists()
    assert done.stderr == (
        f'spark-bench: error: --data-root images={tmp_path}/no where: there is no such file or folder\n'
    )
