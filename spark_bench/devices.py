"""Where a command computes."""

import sys

import torch

from spark_bench.errors import InputError


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name; without one, ``cuda`` where there is a GPU, else ``cpu``.

    Raises:
        InputError: where torch cannot compute there, in float64 as all that is measured is.

    A GPU that is named by its number becomes torch's current one.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=name, dtype=torch.float64)
        device = torch.device(name)
        if device.type not in ('cpu', 'cuda'):
            raise TypeError('of no kind that anything here was tried on')
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f'--device {name!r} is not available here: choose cpu, or cuda on a machine that has it'
        ) from error
    if device.type == 'cuda' and device.index is not None:
        torch.cuda.set_device(device)  # events are of the current one, and so is the name of the card
    return device


def imitates_bfloat16(device: torch.device | str) -> bool:
    """Whether it computes bfloat16 several times slower than float32: a CPU for whose instructions oneDNN cannot.

    On a core of an EPYC with AVX2 an update of a small ConvNeXt took 4.6 s in place of 0.93; on one with AVX-512, 0.9.
    """
    if torch.device(device).type != 'cpu':
        return False
    return not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def tell_precision(amp: bool, device: torch.device | str) -> None:
    """Say on standard error where bfloat16, if ``amp`` asks for it, slows a run down."""
    if amp and imitates_bfloat16(device):
        print(
            'spark-bench: note: this CPU has no instructions for bfloat16: with --amp it computes several times '
            'slower than without',
            file=sys.stderr,
        )
