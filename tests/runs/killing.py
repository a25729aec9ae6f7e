"""Commands in processes of their own, which tests kill."""

import contextlib
import multiprocessing
import os
import signal

import torch

from spark_bench import commands


def start(words, log):
    """Start a command in a process of its own group, with its output in ``log``; return it."""
    log.parent.mkdir(exist_ok=True)
    process = multiprocessing.get_context('fork').Process(target=_run, args=(words, str(log)))
    process.start()
    return process


def _run(words, log):
    os.setsid()
    torch.set_num_threads(1)  # of its parent's threads, a forked process has none, and would wait for them
    with open(log, 'ab', buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os._exit(commands.main([*words, '--debug']))


def finish(process, folder):
    """Wait for the command to succeed."""
    process.join(120)
    assert process.exitcode == 0, (folder / 'log.txt').read_text()[-3000:]


def kill(process):
    """SIGKILL the command and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
