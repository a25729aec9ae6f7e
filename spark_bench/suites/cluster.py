"""Cells as jobs of a cluster, through submitit: arrays of Slurm, or the same jobs on this machine."""

import contextlib
import getpass
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit

from spark_bench.errors import InputError, RunError, ToldElsewhere, printable
from spark_bench.files import make_folder
from spark_bench.runs import run_task
from spark_bench.suites.definition import Suite
from spark_bench.suites.gpus import devices_of
from spark_bench.suites.plan import fitting_processes
from spark_bench.suites.runner import SuiteRun
from spark_bench.suites.status import failure_of, job_of, note_failure, note_job

_GPUS = 8  # a cell
_GRACE_S = 900  # longer than what clusters give a job that has to go


class ClusterJob:
    """One cell, as a job calls it in each of its tasks: every one is a process of the run.

    Args:
        task, options: of :func:`spark_bench.runs.run_task`.
        processes: how many train together.
    """

    def __init__(self, task: str, options: dict[str, Any], processes: int) -> None:
        self.task, self.options, self.processes = task, options, processes

    def __call__(self) -> str:
        """Run the cell; what fails is also left in its folder. Returns the path of that folder."""
        options = dict(self.options)
        if self.processes > 1:
            options['launcher'] = 'slurm'
        if _is_first():
            note_failure(self.options['work_dir'], None)
        os.register_at_fork(after_in_child=_leave_signal_to_task)
        terminated = _note_signal(signal.SIGTERM)
        try:
            run_task(self.task, **options)
        except Exception as error:
            if terminated:
                _wait_to_be_stopped()
            if isinstance(error, (InputError, RunError)):
                note_failure(self.options['work_dir'], error)  # of a loader, say, that this process alone has
            elif _is_first() and not isinstance(error, ToldElsewhere):
                told = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
                note_failure(self.options['work_dir'], f'{told}; see {submitit.JobEnvironment().paths.stderr}')
            raise
        return options['work_dir']

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit submits anew when the job is stopped or preempted: the same, which goes on where it was."""
        return submitit.helpers.DelayedSubmission(self)


def _is_first():
    return int(os.environ.get('SLURM_PROCID', 0)) == 0


def _leave_signal_to_task():
    """In a process that loads images: submitit's signal comes to it too, but is for the task to answer."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, f'SIG{submitit.JobEnvironment.USR_SIG}')})


def _wait_to_be_stopped():
    """Wait for what follows SIGTERM: submitit's signal, or SIGKILL and a place in the queue.

    Slurm tells all processes of a job that has to go, and loaders die of it. A job that failed of that before the end
    of its grace would not be queued again.
    """
    end = time.monotonic() + _GRACE_S
    while time.monotonic() < end:
        # torch raises in this process for each loader that dies.
        with contextlib.suppress(RuntimeError):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            time.sleep(max(0.0, end - time.monotonic()))


def _note_signal(number):
    """List that gets an entry whenever ``number`` comes, beside what submitit does then."""
    came, answer = [], signal.getsignal(number)
    if callable(answer):
        signal.signal(number, lambda *told: (came.append(number), answer(*told)))
    return came


def submit(suite: Suite, cells: Sequence[SuiteRun], folder: Path, args: Namespace) -> int:
    """Submit the cells to Slurm and return at once: every pretraining, and what starts from it to begin after it.

    A cell of which a job is queued or running is left out.

    Args:
        suite: for the names of the jobs.
        cells: to submit.
        folder: of logs and scripts.
        args: ``gpus``, ``gpus_per_node``, ``cpus_per_gpu``, ``partition``, ``hours``, ``jobs``, ``slurm`` and ``suite``
            of the command line.

    Raises:
        InputError: where Slurm's commands are not there, or refuse.
    """
    most = args.gpus or _GPUS
    if most > args.gpus_per_node and most % args.gpus_per_node:
        raise InputError(
            f'--gpus {most} is no whole number of nodes of {args.gpus_per_node}: give another --gpus or --gpus-per-node'
        )
    executor = make_executor(folder, 'slurm')
    known = {cell.name: job_of(cell.options['work_dir']) for cell in cells}
    alive = _alive_jobs() if any(known.values()) else set()
    jobs = {name: job for name, job in known.items() if job in alive}
    for name, job in jobs.items():
        print(f'{job}  {name} (submitted before)')
    for (kind, after), members in _arrays([cell for cell in cells if cell.name not in jobs], jobs).items():
        processes = fitting_processes(members, most, args.gpus_per_node)
        _describe(executor, f'{suite.name}-{kind}', processes, args, jobs.get(after))
        for cell, job in zip(members, _submit_array(executor, members, processes), strict=True):
            jobs[cell.name] = job
            note_job(cell.options['work_dir'], job)
            print(f'{job}  {cell.name}')
    places = {'--work-dir': args.work_dir, '--results': args.results}
    words = [word for option, place in places.items() if place for word in (option, place)]
    command = shlex.join(['spark-bench', 'run', args.suite, *words, '--status'])
    print(f'submitted: `{command}` tells where they stand, logs are in {folder}')
    return 0


def _arrays(cells, jobs):
    """The cells by what an array shares: the task, and the pretraining that is waited for."""
    submitted = {*jobs, *(cell.name for cell in cells)}
    arrays = {}
    for cell in sorted(cells, key=lambda cell: cell.task != 'pretrain'):
        after = cell.needs.name if cell.needs is not None and cell.needs.name in submitted else None
        arrays.setdefault((cell.task, after), []).append(cell)
    return arrays


def _submit_array(executor, cells, processes):
    """Ids of the jobs of an array, one a cell."""
    for cell in cells:
        make_folder(cell.options['work_dir'])
    try:
        with executor.batch():
            jobs = [executor.submit(ClusterJob(cell.task, cell.options, processes)) for cell in cells]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        reason = printable(' '.join(str(error).split()))[-300:]
        raise InputError(
            f'sbatch refused {cells[0].name} ({reason}): look at --partition, --gpus, --hours and --slurm'
        ) from error
    return [job.job_id for job in jobs]


def make_executor(folder: Path, cluster: str, python: str | None = None) -> submitit.AutoExecutor:
    """submitit's executor, for ``slurm`` or ``local``.

    Args:
        folder: of logs.
        cluster: ``slurm`` or ``local``.
        python: command of the interpreter, for ``local``.

    Raises:
        InputError: where Slurm's commands are not there.
    """
    try:
        # A job may be stopped and submitted again as often as it takes.
        return submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=1000, local_python=python)
    except RuntimeError as error:
        raise InputError(
            f'--cluster {cluster}: {error}; submit from a node that has sbatch, or leave --cluster away'
        ) from error
    except OSError as error:
        raise InputError(f'--work-dir {folder} cannot be written: {error.strerror}') from error


def _describe(executor, name, processes, args, after):
    """Set what the next array asks Slurm for; ``after`` is the job that has to succeed before it begins, or None."""
    per_node = min(processes, args.gpus_per_node)
    extra = {'requeue': True, **dict(args.slurm)}
    if after is not None:
        # Where that fails, these could start from nothing: they are cancelled, and submitted again with it.
        extra |= {'dependency': f'afterok:{after}', 'kill-on-invalid-dep': 'yes'}
    executor.update_parameters(
        name=name,
        timeout_min=args.hours * 60,
        nodes=processes // per_node,
        tasks_per_node=per_node,
        gpus_per_node=per_node,
        cpus_per_task=args.cpus_per_gpu,
        slurm_array_parallelism=args.jobs or 256,
        # One process that fails ends the others, which would wait for it.
        # Of some of its versions srun does not take the number of cores over from sbatch.
        slurm_srun_args=['--kill-on-bad-exit=1', f'--cpus-per-task={args.cpus_per_gpu}'],
        slurm_additional_parameters=extra,
        **({'slurm_partition': args.partition} if args.partition else {}),
    )


def _alive_jobs():
    """Ids of this user's jobs that are queued or running."""
    command = ['squeue', '--noheader', '--array', '--format=%i', f'--user={getpass.getuser()}']
    try:
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, 'stderr', None) or str(error)
        raise InputError(
            f'--cluster slurm: squeue does not tell which jobs are queued ({printable(told.strip())})'
        ) from error


class LocalJob:
    """A cell that runs as a job of submitit's local executor, for :func:`~spark_bench.suites.runner.run_cells`.

    Args:
        folder: of logs.
        hours: after which it is stopped, and goes on in the next attempt.
        cell: to run, in one process.
        slot: which of the cells that run side by side.
    """

    def __init__(self, folder: Path, hours: int, cell: SuiteRun, slot: int) -> None:
        self.cell, self.slot, self.started = cell, slot, time.monotonic()
        executor = make_executor(
            folder, 'local', f'env CUDA_VISIBLE_DEVICES={devices_of(slot, 1)} {shlex.quote(sys.executable)}'
        )
        executor.update_parameters(timeout_min=hours * 60)
        self._job = executor.submit(ClusterJob(cell.task, cell.options, 1))

    def poll(self) -> str | None:
        """The outcome: ``done``, a message of what failed, or None while it runs."""
        if not self._job.done():
            return None
        if self._job.exception() is None:
            return 'done'
        return failure_of(self.cell.options['work_dir']) or f'its job ended early; see {self._job.paths.stderr}'

    def kill(self) -> None:
        """End the job."""
        self._job.cancel()
        self._job.wait()
