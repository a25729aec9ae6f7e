"""What went wrong when a step is not finite: the first module, or the first parameter."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spark_bench.training.resume import set_random_states


class NotFinite(Exception):
    """The loss or the gradients of a step are not finite."""

    def __init__(self, loss: float, norm: float) -> None:
        super().__init__(f'the loss is {loss}' if loss - loss != 0 else f'the gradient is {norm}, the loss {loss:.4g}')


@dataclass(frozen=True)
class Cause:
    """Where a value that is not finite appeared first.

    Attributes:
        text: for people.
        found: whether this process found it; another one's images may be to blame.
    """

    text: str
    found: bool

    def __str__(self):
        return self.text


def explain(model: nn.Module, batches: Sequence[dict], states: Mapping[str, Any],
            computing: Callable[[torch.device], contextlib.AbstractContextManager]) -> Cause:
    """Repeat the forward passes of a failed step and watch every module.

    Args:
        model: :class:`~spark_bench.models.pretraining.PretrainingModel`, perhaps wrapped for several processes.
        batches: the batches of the step.
        states: random states before the step, for the same masks.
        computing: function from a device to the context of the forward pass.

    Returns:
        :class:`Cause`.
    """
    model = getattr(model, 'module', model)
    sound = {name: bool(torch.isfinite(value).all()) for name, value in model.trained.state_dict().items()}
    gradients = [name for name, parameter in model.trained.named_parameters()
                 if parameter.grad is not None and not torch.isfinite(parameter.grad).all()]
    first = _watch(model, batches, states, computing)
    broken = [name for name in sound if not sound[name]]
    # Running statistics take up what the failed step computed: they follow, and are not the cause.
    parameters = [name for name in broken if name in dict(model.trained.named_parameters())]
    if parameters:
        return Cause(f'{parameters[0]} held values that are not finite before the step', True)
    if first is not None:
        return Cause(f'the first value that is not finite is in the output of {first}', True)
    if gradients:
        # Gradients flow from the loss back: the last parameter is the first that they reach.
        return Cause(f'the outputs of all modules are finite, the gradient of {gradients[-1]} is not', True)
    return Cause('no module gives such a value when the step is repeated', False)


@torch.no_grad()
def _watch(model, batches, states, computing):
    """``name (type)`` of the first module with an output that is not finite, or None."""
    found = []

    def look(name, module, output):
        outputs = output if isinstance(output, (list, tuple)) else [output]
        if not found and not all(torch.isfinite(value).all() for value in outputs if torch.is_tensor(value)):
            found.append(f'{name} ({type(module).__name__})')

    handles = [module.register_forward_hook(lambda module, _, output, name=name: look(name, module, output))
               for name, module in model.trained.named_modules() if name]
    set_random_states(states)
    try:
        with model.observable():
            for batch in batches:
                data = model.data_preprocessor(batch, True)
                with computing(next(model.parameters()).device):
                    model(**data, mode='loss')
    finally:
        for handle in handles:
            with contextlib.suppress(KeyError):
                handle.remove()
    return found[0] if found else None
