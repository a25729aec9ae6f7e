"""What went wrong when a step is not finite: the first module, or the first parameter."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.utils import unwrap_model
from torch import nn

from spark_bench.training.compiling import eagerly
from spark_bench.training.resume import set_random_states


class NotFinite(Exception):
    """The loss or the gradients of a step are not finite."""

    def __init__(self, loss: float, norm: float) -> None:
        super().__init__(f'the loss is {loss}' if loss - loss != 0 else f'the gradient is {norm}, the loss {loss:.4g}')


def explain(
    model: nn.Module,
    batches: Sequence[dict],
    states: Mapping[str, Any],
    computing: Callable[[torch.device], contextlib.AbstractContextManager],
) -> str | None:
    """Repeat the forward passes of a failed step and watch every module.

    Args:
        model: :class:`~spark_bench.models.pretraining.PretrainingModel`, perhaps wrapped for several processes.
        batches: the batches of the step.
        states: random states before the step, for the same masks.
        computing: function from a device to the context of the forward pass.

    Returns:
        where a value that is not finite appeared first; None where this process finds none, for another one's images
        may be to blame.
    """
    model = unwrap_model(model)
    # Not the running statistics: they take up what the failed step computed.
    parameters = dict(model.trained.named_parameters())
    broken = [name for name, parameter in parameters.items() if not torch.isfinite(parameter).all()]
    gradients = [
        name
        for name, parameter in parameters.items()
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    ]
    first = _watch(model, batches, states, computing)
    if broken:
        return f'{broken[0]} held values that are not finite before the step'
    if first is not None:
        return f'the first value that is not finite is in the output of {first}'
    if gradients:
        # Gradients flow from the loss back: the last parameter is the first that they reach.
        return f'the outputs of all modules are finite, the gradient of {gradients[-1]} is not'
    return None


@torch.no_grad()
def _watch(model, batches, states, computing):
    """``name (type)`` of the first module with an output that is not finite, or None."""
    found = []

    def look(name, module, output):
        outputs = output if isinstance(output, (list, tuple)) else [output]
        if not found and not all(torch.isfinite(value).all() for value in outputs if torch.is_tensor(value)):
            found.append(f'{name} ({type(module).__name__})')

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: look(name, module, output))
        for name, module in model.trained.named_modules()
        if name
    ]
    set_random_states(states)
    try:
        with eagerly(), model.observable():
            for batch in batches:
                data = model.data_preprocessor(batch, True)
                with computing(next(model.parameters()).device):
                    model(**data, mode='loss')
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
