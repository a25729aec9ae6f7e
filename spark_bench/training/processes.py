"""Training in several processes: joining them, and agreeing on what the first one finds."""

import contextlib
import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process

from spark_bench.errors import InputError, RunError, ToldElsewhere

LAUNCHERS = ('none', 'pytorch', 'slurm')
# How long the others wait for the first, which evaluates alone: 10,000 resamples of COCO take a quarter of an hour.
_PATIENCE_S = 3 * 3600
# How long one that has met an error waits for the first to meet it too, and the key that this one then sets.
_AGREE_S, _MET = 10.0, 'spark_bench/met_an_error'

Value = TypeVar('Value')


def join(launcher: str) -> None:
    """Join the processes that ``launcher`` started: NCCL where there are GPUs, gloo elsewhere.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun) or ``slurm`` (srun).

    Raises:
        InputError: where this process was not started by that launcher.
    """
    if launcher not in LAUNCHERS:
        raise InputError(f'--launcher {launcher}: choose one of {", ".join(LAUNCHERS)}')
    if launcher == 'none' or is_distributed():
        return
    try:
        if launcher == 'slurm':
            _describe_slurm()
        missing = [key for key in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR') if key not in os.environ]
        if missing:
            raise KeyError(missing[0])
    except KeyError as error:
        starter = 'torchrun' if launcher == 'pytorch' else 'srun'
        raise InputError(
            f'--launcher {launcher}: {error.args[0]} is not set: start the command with '
            f'{starter}, or leave --launcher away'
        ) from error
    if torch.cuda.is_available():
        init_dist('pytorch', backend='nccl', timeout=_PATIENCE_S)
    else:
        # mmengine's init_dist chooses a GPU first.
        dist.init_process_group('gloo', timeout=timedelta(seconds=_PATIENCE_S))


def _describe_slurm():
    """Tell torch what Slurm knows, under the names that torchrun uses."""
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    # Where each task was given a GPU of its own, it sees no other.
    alone = torch.cuda.device_count() == 1
    os.environ['LOCAL_RANK'] = '0' if alone else os.environ['SLURM_LOCALID']
    # Jobs that share a node must not meet at one port; those above are the system's to give away.
    os.environ.setdefault('MASTER_PORT', str(10000 + int(os.environ.get('SLURM_JOB_ID', 0)) % 20000))
    if 'MASTER_ADDR' not in os.environ:
        command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_JOB_NODELIST']]
        try:
            hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(
                f'--launcher slurm: {" ".join(command)} failed: set MASTER_ADDR to the first node'
            ) from error
        os.environ['MASTER_ADDR'] = hosts[0]


def leave() -> None:
    """Leave the other processes, all at once; a no-op for a single one."""
    if is_distributed():
        # A wrapped model that outlives its process group makes torch hang or abort; the Runner refers to itself.
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def from_main(function: Callable[[], Value]) -> Value:
    """Call ``function`` in the first process alone and return its result in all of them.

    Raises:
        InputError, RunError: what the function raised; in all processes but the first, :class:`ToldElsewhere`.
    """
    result = error = None
    if is_main_process():
        try:
            result = function()
        except (InputError, RunError) as raised:
            error = raised
    box = [(result, error)]
    broadcast_object_list(box)
    result, error = box[0]
    if error is not None:
        raise error if is_main_process() else ToldElsewhere(error)
    return result


def once(error: InputError | RunError) -> Exception:
    """What to raise for an error that every process is to meet, so that one line is printed and not one a process.

    What the first process does not meet too, such as a data root that another machine lacks, the others tell.
    """
    if not is_distributed():
        return error
    store = dist.distributed_c10d._get_default_store()
    if is_main_process():
        store.set(_MET, '1')
        return error
    try:
        store.wait([_MET], timedelta(seconds=_AGREE_S))
    except dist.DistStoreError:
        return type(error)(f'process {dist.get_rank()} alone: {error}')
    except RuntimeError:  # the first has ended, and its store with it
        pass
    return ToldElsewhere(error)


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Every process is to find the same wrong within; see :func:`once`.

    Raises:
        InputError, RunError: as raised; in all processes but the first, :class:`ToldElsewhere`.
    """
    try:
        yield
    except (InputError, RunError) as error:
        raise once(error) from error
