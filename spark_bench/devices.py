"""Where a command computes."""

import torch

from spark_bench.errors import InputError


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name; without one, ``cuda`` where there is a GPU, else ``cpu``.

    Raises:
        InputError: where torch cannot compute there, in float64 as all that is measured is.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=name, dtype=torch.float64)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f'--device {name!r} is not available here: choose cpu, or cuda on a machine that has it'
        ) from error
    return torch.device(name)
