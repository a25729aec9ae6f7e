"""What a device can do, and how much of that a step asks for."""

import itertools
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# Side of the matrices, and bytes of the buffer, that the limits are measured with.
_SIDES, _BUFFERS = {'cpu': 1024, 'cuda': 8192}, {'cpu': 2**27, 'cuda': 2**30}


def computing(device: torch.device, amp: bool) -> Any:
    """The context that everything measured computes in: bfloat16 autocast with ``amp``."""
    return torch.autocast(device.type, torch.bfloat16) if amp else nullcontext()


def wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


class Device:
    """Measures the limits of a device with operations that do nothing else.

    Args:
        amp: measure the matrix rate in bfloat16, not float32.
    """

    def __init__(self, device: torch.device, amp: bool) -> None:
        self.device = device
        side, self._bytes = _SIDES[device.type], _BUFFERS[device.type]
        self._matrix = torch.ones(side, side, device=device, dtype=torch.bfloat16 if amp else torch.float32)
        self._source = torch.zeros(self._bytes, dtype=torch.uint8, device=device)
        self._target = torch.empty_like(self._source)

    def matrix_rate(self) -> float:
        """Multiply-adds a second in the product of two square matrices."""
        return len(self._matrix) ** 3 / self._time(lambda: self._matrix @ self._matrix)

    def bandwidth(self) -> float:
        """Bytes a second in a copy, read and written ones."""
        return 2 * self._bytes / self._time(lambda: self._target.copy_(self._source))

    def _time(self, operation):
        wait(self.device)
        start = time.perf_counter()
        operation()
        wait(self.device)
        return time.perf_counter() - start


class Counter(TorchDispatchMode):
    """Counts what every operation of torch within asks for.

    What Python code gives to kernels of its own, or to a compiler, is not seen.

    Attributes:
        macs: multiply-adds of convolutions, products and attention, as :mod:`torch.utils.flop_counter` counts them; but
            for gradients of convolutions, which it takes for those of one group.
        bytes: of all tensors that operations read or write, as if nothing stayed in a cache; views cost nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if func.overloadpacket is torch.ops.aten.convolution_backward:
            self.macs += _gradients_macs(*args)
        elif count is not None:
            self.macs += count(*args, **(kwargs or {}), out_val=outputs) // 2
        if not func.is_view:
            self.bytes += sum(
                leaf.numel() * leaf.element_size()
                for leaf in tree_leaves((args, kwargs, outputs))
                if torch.is_tensor(leaf)
            )
        return outputs


def _gradients_macs(grad, x, weight, _, stride, padding, dilation, transposed, output_padding, groups, mask):
    """The gradients of input and weight each take as many multiply-adds as the convolution."""
    return (x if transposed else grad).numel() * weight[0].numel() * sum(mask[:2])


def count(run: Callable[[], object]) -> Counter:
    """What ``run`` asks for, see :class:`Counter`."""
    with Counter() as counter:
        run()
    return counter


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most memory in use at a time in a run that is not the first, beyond what is in use before."""
    if device.type == 'cuda':
        wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Warning: Profiler clears events')  # there is one cycle here
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            run()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == '[memory]'
    )
    return max(itertools.accumulate((change for _, change in changes), initial=0))
