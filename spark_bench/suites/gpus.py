"""Which GPUs the cells of a suite that run side by side compute on."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

from spark_bench.errors import InputError

_VARIABLE = 'CUDA_VISIBLE_DEVICES'


@contextmanager
def only_devices(names: str) -> Iterator[None]:
    """Within, this process, and those that are started, have those GPUs, as ``CUDA_VISIBLE_DEVICES`` has them."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = names
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def devices_of(slot: int, processes: int) -> str:
    """The GPUs of one of the cells that run side by side, as ``CUDA_VISIBLE_DEVICES`` has them.

    Args:
        slot: which of them, from 0.
        processes: GPUs a cell.
    """
    named, first = _named(), slot * processes
    if named is None:
        return ','.join(map(str, range(first, first + processes)))
    return ','.join(named[first : first + processes])


def count_gpus() -> int:
    """GPUs that cells can have: those that torch sees, one as often as ``CUDA_VISIBLE_DEVICES`` names it.

    Raises:
        InputError: where it names some that are not there beside others that are; cells would be left without.
    """
    from torch.cuda import device_count

    named = _named()
    if named is None:
        return device_count()
    # torch sees none at all where one is named twice.
    distinct = list(dict.fromkeys(named))
    with only_devices(','.join(distinct)):
        seen = device_count()
    if 0 < seen < len(distinct):
        raise InputError(
            f'{_VARIABLE}={os.environ[_VARIABLE]} names {len(distinct)} GPUs, of which torch sees {seen}: name those '
            'that are there (nvidia-smi lists them)'
        )
    return len(named) if seen else 0


def fitting_jobs(asked: int | None, default: int, gpus: int) -> int:
    """How many cells run at a time: as many as asked, or else as have GPUs, or ``default`` where there are none.

    Args:
        asked: None where nobody said.
        gpus: of each cell.

    Raises:
        InputError: where there are GPUs, and fewer than are asked for: some cells would be left without.
    """
    visible = count_gpus()
    if not visible:
        return asked or default
    given, jobs = os.environ.get(_VARIABLE), asked or max(1, visible // gpus)
    if jobs * gpus > visible:
        named = f'{_VARIABLE}={given} names {visible}' if given else f'there are {visible}'
        raise InputError(
            f'{jobs} cells at a time take {jobs * gpus} GPUs, {named}: lower --jobs or --gpus; or name a GPU as often '
            f'as cells are to share it ({_VARIABLE}=0,0), or none ({_VARIABLE}=)'
        )
    for devices in (devices_of(slot, gpus).split(',') for slot in range(jobs)):
        if len(set(devices)) < gpus:
            raise InputError(
                f'{_VARIABLE}={given} gives the {gpus} processes of a cell {", ".join(devices)}, one GPU '
                'twice: name each once in a row of that many, or lower --gpus'
            )
    return jobs


def _named():
    """What ``CUDA_VISIBLE_DEVICES`` names, up to the first that is none, as CUDA reads it; None where it is not set."""
    given = os.environ.get(_VARIABLE)
    if given is None:
        return None
    names = (name.strip() for name in given.split(','))
    return list(itertools.takewhile(lambda name: name not in ('', '-1', 'NoDevFiles'), names))
