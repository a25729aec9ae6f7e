"""Cells as jobs of a cluster, through submitit: arrays of Slurm, or the same jobs on this machine."""

import contextlib
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from spark_bench.errors import InputError, RunError
from spark_bench.suites.queue import queued, remember
from spark_bench.suites.runner import ENGINES
from spark_bench.suites.status import note_failure

_GPUS = 8  # a cell
# Pretrainings first: what starts from them is submitted to begin when they have ended.
_STAGES = (('pretrain',), ('classification', 'detection'))


class CellJob:
    """One cell, as a job calls it in each of its tasks: every one is a process of the run.

    Args:
        task: key of ``ENGINES``.
        options: keyword arguments of :class:`~spark_bench.engine.runs.RunOptions`.
        processes: how many train together.
    """

    def __init__(self, task, options, processes):
        self.task, self.options, self.processes = task, options, processes

    def __call__(self):
        """Run the cell; what fails is also left in its folder. Returns the path of the record's folder."""
        from spark_bench.engine.runs import RunOptions
        options = dict(self.options)
        if self.processes > 1:
            # Jobs that share a node must not meet at one port.
            os.environ.setdefault('MASTER_PORT', str(20000 + int(os.environ.get('SLURM_JOB_ID', 0)) % 40000))
            options['launcher'] = 'slurm'
        note_failure(options['work_dir'], None)
        try:
            import_module(ENGINES[self.task]).run(RunOptions(**options))
        except (InputError, RunError) as error:
            note_failure(options['work_dir'], error)
            raise
        return options['work_dir']

    def checkpoint(self):
        """What submitit submits anew when the job is stopped or preempted: the same, which goes on where it was."""
        import submitit
        return submitit.helpers.DelayedSubmission(self)


def submit(suite, cells, args):
    """Submit the cells that have no job; on Slurm return at once, with the local executor wait for them.

    Returns:
        exit status.

    Raises:
        InputError: where submitit or Slurm's commands are not there, or Slurm does not answer.
    """
    folder = Path(args.work_dir or f'work_dirs/{suite.name}') / 'jobs'
    jobs = {} if args.cluster == 'local' else queued(folder)
    for name, job in jobs.items():
        print(f'{job}  {name}: in the queue since an earlier submission')
    submitted = {}
    for tasks in _STAGES:
        new = [cell for cell in cells if cell.task in tasks and cell.name not in jobs]
        for kind in tasks:
            members = [cell for cell in new if cell.task == kind]
            if members:
                submitted |= _submit_array(suite, kind, members, folder, args, jobs)
        if args.cluster == 'local':
            _wait([submitted[cell.name] for cell in new])
    if args.cluster == 'local':
        return _report(submitted)
    for name, job in submitted.items():
        print(f'{job.job_id}  {name}')
    print(f'submitted {len(submitted)}: `spark-bench run {args.suite} --status` tells where they stand, logs are in '
          f'{folder}')
    return 0


def _submit_array(suite, kind, cells, folder, args, jobs):
    """Submit cells of one kind; on Slurm add their ids to ``jobs``."""
    local = args.cluster == 'local'
    processes = 1 if local else fitting_processes(cells, args.gpus or _GPUS)
    needed = {cell.name: jobs[cell.needs.name] for cell in cells if cell.needs and cell.needs.name in jobs}
    executor = make_executor(suite, kind, folder, args, processes, needed.values())
    with executor.batch():
        submitted = [executor.submit(CellJob(cell.task, cell.options, processes)) for cell in cells]
    array = dict(zip((cell.name for cell in cells), submitted, strict=True))
    if not local:
        jobs |= {name: job.job_id for name, job in array.items()}
        remember(folder, jobs)
        for name in array if needed else ():
            _begin_after(jobs[name], needed.get(name))
    return array


def _begin_after(job, needed):
    """Let a job of an array begin as soon as the job that it needs, if any, has ended, however that ended.

    The tasks of an array are submitted with one dependency: on every job of the stage before. Where Slurm refuses
    (the task has begun already), that one stays.

    Args:
        job, needed: ids, such as ``13_2`` and ``12_0``.
    """
    after = f'afterany:{needed}' if needed is not None else ''
    with contextlib.suppress(OSError):
        subprocess.run(['scontrol', 'update', f'JobId={job}', f'Dependency={after}'], capture_output=True, check=False)


def fitting_processes(cells, most):
    """The most processes, up to ``most``, that divide the global batch of every cell's recipe."""
    from mmengine.config import Config
    batches = [Config.fromfile(cell.options['config'], import_custom_modules=False).get('global_batch') or most
               for cell in cells]
    return next(number for number in range(most, 0, -1) if all(batch % number == 0 for batch in batches))


def make_executor(suite, kind, folder, args, processes=1, after=()):
    """submitit's executor for the cells of one kind.

    Args:
        suite, kind: for the name of the jobs.
        folder: of logs.
        args: ``cluster``, ``gpus_per_node``, ``cpus_per_gpu``, ``partition``, ``hours``, ``jobs``, ``slurm``.
        processes: of each cell, one a GPU.
        after: ids of jobs that must have ended, however, before these begin.
    """
    import submitit
    try:
        # A job may be stopped and submitted again as often as it takes.
        executor = submitit.AutoExecutor(folder=folder, cluster=args.cluster, slurm_max_num_timeout=1000)
    except RuntimeError as error:
        raise InputError(f'--cluster {args.cluster}: {error}; submit from a node that has sbatch, or leave --cluster '
                         'away') from error
    executor.update_parameters(name=f'{suite.name}-{kind}', timeout_min=args.hours * 60)
    if args.cluster == 'local':
        return executor
    per_node = min(processes, args.gpus_per_node)
    if processes % per_node:
        raise InputError(f'{processes} GPUs a cell are no whole number of nodes of {per_node}: give another --gpus or '
                         '--gpus-per-node')
    extra = dict(args.slurm)
    if after:
        extra['dependency'] = 'afterany:' + ':'.join(dict.fromkeys(job.partition('_')[0] for job in after))
    executor.update_parameters(
        nodes=processes // per_node, tasks_per_node=per_node, gpus_per_node=per_node, cpus_per_task=args.cpus_per_gpu,
        slurm_array_parallelism=args.jobs or 256, slurm_additional_parameters=extra,
        **({'slurm_partition': args.partition} if args.partition else {}))
    return executor


def _wait(jobs):
    for job in jobs:
        job.wait()


def _report(submitted):
    status = 0
    for name, job in submitted.items():
        error = job.exception()
        if error is not None:
            status = 1
            print(f'spark-bench: error: {name}: {str(error).strip().splitlines()[-1]}', file=sys.stderr)
        else:
            print(f'{name}: done')
    return status
