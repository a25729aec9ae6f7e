"""Time and activation memory of the packed engine against the plain masked-dense definition, in one run."""

import itertools
import statistics
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from pretrain import VisibleLayout, build_spark, random_mask

ENGINES = ('packed', 'reference')
PARTS = ('encoder', 'step')


@dataclass(frozen=True)
class Figure:
    """What one part of one network costs with one engine.

    Attributes:
        arch: timm name.
        part: ``encoder``, or the whole training ``step`` without the optimizer; forward and backward each.
        engine: ``packed`` or ``reference``.
        forward_s, backward_s, total_s: median seconds.
        peak_bytes: most memory in use at a time, beyond weights, their gradients and the images.
        value: the loss of the step; of the encoder, the sum over its maps. Equal for both engines up to rounding.
    """

    arch: str
    part: str
    engine: str
    forward_s: float
    backward_s: float
    total_s: float
    peak_bytes: int
    value: float


def measure(
    arch: str,
    input_size: int,
    batch_size: int,
    mask_ratio: float,
    rounds: int,
    device: str,
    amp: bool,
    channels_last: bool,
) -> list[Figure]:
    """Time both engines on the same images (noise), masks and weights, in turn.

    Args:
        arch: timm name.
        input_size: side of the images in pixels.
        rounds: how often each engine runs.
        amp: compute in bf16 autocast.

    Returns:
        one of each engine, packed first, for the encoder and then for the step.

    Raises:
        InputError: for a network or a size that does not fit.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    models = {}
    for engine in ENGINES:
        torch.manual_seed(0)
        model = build_spark(arch, input_size, mask_ratio, engine=engine)
        models[engine] = model.to(device, memory_format=layout).train()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch_size, 3, input_size, input_size, generator=generator)
    image = image.to(device, memory_format=layout)
    active = random_mask(batch_size, models['packed'].grid, mask_ratio, generator)
    figures = []
    for part in PARTS:
        timed: dict[str, list[tuple[float, float, float]]] = {engine: [] for engine in ENGINES}
        for engine in ENGINES:  # the first run allocates, and builds the kernels
            _run_once(models[engine], part, image, active, amp)
        peaks = {engine: _peak_bytes(models[engine], part, image, active, amp) for engine in ENGINES}
        for _ in range(rounds):
            for engine in ENGINES:
                models[engine].zero_grad()
                timed[engine].append(_run_once(models[engine], part, image, active, amp))
        for engine in ENGINES:
            forward, backward, values = zip(*timed[engine], strict=True)
            total = [a + b for a, b in zip(forward, backward, strict=True)]
            figures.append(
                Figure(
                    arch,
                    part,
                    engine,
                    statistics.median(forward),
                    statistics.median(backward),
                    statistics.median(total),
                    peaks[engine],
                    values[0],
                )
            )
    return figures


def _run_once(model, part, image_B3HW, active_B1ff, amp):
    """``(forward seconds, backward seconds, value)`` of one run."""
    torch.manual_seed(0)  # stochastic depth draws the same for both engines
    _wait(image_B3HW.device)
    start = time.perf_counter()
    with torch.autocast(image_B3HW.device.type, torch.bfloat16) if amp else nullcontext():
        outputs = [model(image_B3HW, active_B1ff)] if part == 'step' else _encode(model, image_B3HW, active_B1ff)
    _wait(image_B3HW.device)
    middle = time.perf_counter()
    # The gradient of a sum, which takes no memory of its own.
    torch.autograd.backward(outputs, [output.new_ones(()).expand_as(output) for output in outputs])
    _wait(image_B3HW.device)
    end = time.perf_counter()
    return middle - start, end - middle, sum(output.detach().double().sum().item() for output in outputs)


def _encode(model, image_B3HW, active_B1ff):
    layout = VisibleLayout(active_B1ff, image_B3HW.device)
    if model.encoder.engine == 'packed':
        return model.encoder(image_B3HW, layout)
    return model.encoder.encode_dense(image_B3HW, layout)


def _wait(device):
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _peak_bytes(model, part, image, active, amp):
    """Peak of one run after a first one: the gradients of the weights are there, and are added to in place."""
    if image.device.type == 'cuda':
        _wait(image.device)
        before = torch.cuda.memory_allocated(image.device)
        torch.cuda.reset_peak_memory_stats(image.device)
        _run_once(model, part, image, active, amp)
        return torch.cuda.max_memory_allocated(image.device) - before
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Warning: Profiler clears events')  # there is one cycle here
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            _run_once(model, part, image, active, amp)
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == '[memory]'
    )
    return max(itertools.accumulate((change for _, change in changes), initial=0))
