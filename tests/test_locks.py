"""Locks between processes: what holds one, and what frees it."""

import os
import signal
import subprocess
import sys

import pytest

from spark_bench.locks import hold, is_held

# Holds a lock, forks a process that ends after so many seconds, and lives on.
HOLDER = """
import os, sys, time
from pathlib import Path
from spark_bench.locks import hold
held = hold(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    time.sleep(float(sys.argv[2]))
    sys.exit()
print(child, flush=True)
if not float(sys.argv[2]):
    os.waitpid(child, 0)
    print('ended', flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    """Function that starts a process which holds a lock, and whose child lives so many seconds."""
    started = []

    def start(lifetime_s):
        started.append(
            subprocess.Popen(
                [sys.executable, '-c', HOLDER, str(tmp_path / '.lock'), str(lifetime_s)],
                env={**os.environ, 'PYTHONPATH': os.getcwd()},
                stdout=subprocess.PIPE,
            )
        )
        return started[-1], int(started[-1].stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_lock_is_held_until_it_is_freed_and_looking_at_it_disturbs_nobody(tmp_path):
    lock = tmp_path / '.lock'
    assert not is_held(lock) and not lock.exists()
    with hold(lock):
        assert is_held(lock) and is_held(lock)
        with pytest.raises(TimeoutError):
            hold(lock, patience_s=0)
    assert not is_held(lock)
    held = hold(lock, patience_s=0)
    held.close()
    assert not is_held(lock)


def test_a_forked_process_that_ends_frees_nothing(start, tmp_path):
    process, _ = start(0)
    assert process.stdout.readline() == b'ended\n' and is_held(tmp_path / '.lock')


def test_a_killed_process_holds_nothing_though_one_that_it_forked_lives_on(start, tmp_path):
    process, child = start(60)
    assert is_held(tmp_path / '.lock')
    process.kill()
    process.wait()
    with hold(tmp_path / '.lock', patience_s=5):
        os.kill(child, signal.SIGKILL)
