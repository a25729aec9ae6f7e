"""Moments within a training step, and the parts of the network that lie between them."""

import time
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from pretrain.sparse.operations import on_each_position, register


class Marks:
    """The moments of one training step: whichever code computes it, they are taken at the outputs of its parts.

    On the way forward a moment ends a part. On the way back a part begins when autograd takes up the gradient of its
    output. A GPU notes the moments itself, so that it never waits for them.

    Args:
        device: where the step is computed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._moments: list[tuple[Any, tuple[str, str] | None, tuple[str, str] | None]] = []

    def start(self) -> None:
        """Forget the step before, and begin with loading."""
        self._moments.clear()
        self.note(begins=('load', ''))

    def note(self, ends: tuple[str, str] | None = None, begins: tuple[str, str] | None = None) -> None:
        """Take a moment.

        Args:
            ends: ``(pass, part)`` that has been computed since the last moment, unless that moment says otherwise.
            begins: ``(pass, part)`` that is computed from now on, unless the next moment says otherwise.
        """
        if self.device.type == 'cuda':
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        else:
            moment = time.perf_counter()
        self._moments.append((moment, ends, begins))

    def output(self, part: str, tensor: torch.Tensor) -> torch.Tensor:
        """Mark an output of a part, which is returned as it is, and its gradient."""
        self.note(ends=('forward', part))
        if tensor.requires_grad:
            # Gives no gradient back, so that the tensor's own stays.
            tensor.register_hook(lambda _: self.note(begins=('backward', part)))
        return tensor

    def watch(self, part: str, module: nn.Module) -> None:
        """Mark the outputs of a module whenever it is called; of several outputs, the first."""

        def mark(_module: nn.Module, _given: object, output: Any) -> None:
            self.output(part, output if torch.is_tensor(output) else output[0])

        module.register_forward_hook(mark)

    def seconds(self) -> dict[tuple[str, str], float]:
        """From ``(pass, part)`` to the seconds that it took; what is computed in several pieces is summed."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        found: dict[tuple[str, str], float] = defaultdict(float)
        for (first, _, begins), (second, ends, _) in zip(self._moments, self._moments[1:], strict=False):
            key = ends or begins
            assert key is not None
            found[key] += first.elapsed_time(second) / 1e3 if self.device.type == 'cuda' else second - first
        return dict(found)


class StageEnd(nn.Module):
    """Stands behind a stage of a sparse encoder, and marks what it gives."""

    def __init__(self, marks: Marks, part: str) -> None:
        super().__init__()
        self.marks, self.part = marks, part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.marks.output(self.part, x)


register(StageEnd, on_each_position, lambda module, x, layout: module(x))


def mark_stages(network: nn.Module, marks: Marks, scales: int = 4) -> None:
    """Put a :class:`StageEnd` behind each of the last stages of a network of timm that give maps, before it is traced.

    The parts are called ``encoder 1`` (the finest map's, with all that lies before) and so on.
    """
    for number, entry in enumerate(list(network.feature_info)[-scales:], start=1):
        parent, _, name = entry['module'].rpartition('.')
        owner = network.get_submodule(parent)
        owner._modules[name] = nn.Sequential(owner.get_submodule(name), StageEnd(marks, f'encoder {number}'))
