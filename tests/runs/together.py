"""A command in several processes at once, as torchrun starts them, from a server that has loaded the libraries."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spark_bench import commands
from spark_bench.suites.runner import start_server

_PATIENCE_S = 20  # for those that are left when one fails


def free_port():
    with socket.socket() as chosen:
        chosen.bind(('localhost', 0))
        return str(chosen.getsockname()[1])


def together(arguments, processes=2, setup=None):
    """Run ``spark-bench`` in processes that train together; what all of them printed, and the first bad exit status.

    ``setup`` is called first in each, with its number.
    """
    port, context = free_port(), start_server()
    with tempfile.TemporaryDirectory() as folder:
        running = [
            context.Process(target=_member, args=(rank, processes, port, list(map(str, arguments)), folder, setup))
            for rank in range(processes)
        ]
        for process in running:
            process.start()
        _wait(running)
        printed = [
            ''.join(Path(folder, f'{rank}.{kind}').read_text() for rank in range(processes)) for kind in ('out', 'err')
        ]
    status = next((process.exitcode for process in running if process.exitcode), 0)
    return subprocess.CompletedProcess(arguments, status, *printed)


def _wait(running):
    end = time.monotonic() + 250
    while any(process.is_alive() for process in running) and time.monotonic() < end:
        time.sleep(0.05)
        if any(process.exitcode for process in running):
            end = min(end, time.monotonic() + _PATIENCE_S)
    for process in running:
        process.kill()
        process.join()


def _member(rank, processes, port, arguments, folder, setup):
    for descriptor, kind in ((1, 'out'), (2, 'err')):
        os.dup2(os.open(Path(folder) / f'{rank}.{kind}', os.O_WRONLY | os.O_CREAT), descriptor)
    names = {'RANK': rank, 'LOCAL_RANK': rank, 'WORLD_SIZE': processes, 'LOCAL_WORLD_SIZE': processes}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR='localhost', MASTER_PORT=port)
    os.environ['OMP_NUM_THREADS'] = '1'
    if setup:
        setup(rank)
    status = commands.main([*arguments, '--launcher', 'torchrun'])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def without_data(rank):
    """A set-up for :func:`together`: the second process finds no data to pretrain on."""
    from spark_bench.errors import InputError
    from spark_bench.runs.pretrain import Pretraining

    def fail(self):
        raise InputError('data root /data: not on this machine')

    if rank == 1:
        Pretraining.open_data = fail
