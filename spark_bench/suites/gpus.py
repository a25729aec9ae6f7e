"""Which GPUs the cells of a suite that run side by side compute on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from spark_bench.errors import InputError


def devices_of(slot: int, processes: int) -> str:
    """The GPUs of one of the cells that run side by side, as ``CUDA_VISIBLE_DEVICES`` has them.

    Args:
        slot: which of them, from 0.
        processes: GPUs a cell.
    """
    given = os.environ.get('CUDA_VISIBLE_DEVICES')
    first = slot * processes
    if given is None:
        return ','.join(map(str, range(first, first + processes)))
    return ','.join(given.split(',')[first : first + processes])


@contextmanager
def each_named_once() -> Iterator[None]:
    """Within, ``CUDA_VISIBLE_DEVICES`` names a GPU that cells share once: torch sees none where it is named twice.

    What mmengine takes for the device is settled when it is imported, in the process that all cells are forked from.
    """
    given = os.environ.get('CUDA_VISIBLE_DEVICES')
    if given is None:
        yield
        return
    os.environ['CUDA_VISIBLE_DEVICES'] = ','.join(dict.fromkeys(name.strip() for name in given.split(',')))
    try:
        yield
    finally:
        os.environ['CUDA_VISIBLE_DEVICES'] = given


def fitting_jobs(asked: int | None, default: int, gpus: int) -> int:
    """How many cells run at a time: as many as asked, or else as have GPUs, or ``default`` where there are none.

    Args:
        asked: None where nobody said.
        gpus: of each cell.

    Raises:
        InputError: where there are GPUs, and fewer than are asked for: some cells would be left without.
    """
    from torch.cuda import device_count

    given = os.environ.get('CUDA_VISIBLE_DEVICES')
    visible = device_count() if given is None else len([name for name in given.split(',') if name.strip()])
    if not visible:
        return asked or default
    jobs = asked or max(1, visible // gpus)
    if jobs * gpus > visible:
        named = f'CUDA_VISIBLE_DEVICES={given} names {visible}' if given else f'there are {visible}'
        raise InputError(
            f'{jobs} cells at a time take {jobs * gpus} GPUs, {named}: lower --jobs or --gpus; or name a GPU as often '
            'as cells are to share it (CUDA_VISIBLE_DEVICES=0,0), or none (CUDA_VISIBLE_DEVICES=)'
        )
    for devices in (devices_of(slot, gpus).split(',') for slot in range(jobs)):
        if len(set(devices)) < gpus:
            raise InputError(
                f'CUDA_VISIBLE_DEVICES={given} gives the {gpus} processes of a cell {", ".join(devices)}, one GPU '
                'twice: name each once in a row of that many, or lower --gpus'
            )
    return jobs
