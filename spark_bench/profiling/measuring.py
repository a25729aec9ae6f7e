"""Training steps of several contestants in turn, as medians, part by part."""

import gc
import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from spark_bench.profiling.contestants import (
    COMPILED,
    Contestant,
    build_mae,
    build_ours,
    build_stock,
    has_stock,
    methods_of_ours,
)
from spark_bench.profiling.limits import Device, computing, count, peak_bytes

PASSES = ('load', 'forward', 'backward', 'optimizer')
# Of ImageNet, in values of 0 … 255.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Figure:
    """What a training step costs one contestant.

    Attributes:
        arch, method: see :class:`~spark_bench.profiling.contestants.Contestant`.
        seconds: medians, of ``load`` (waiting for a batch, its way to the device, normalising), ``forward``,
            ``backward``, ``optimizer`` and the whole ``step``.
        parts: ``[forward, backward]`` medians in seconds, of the parts of the network in their order; ``loss`` has
            the projection to pixels. None of a compiled network.
        peak_bytes: most memory in use at a time, beyond weights, their gradients and the images.
        encoder_peak_bytes: likewise of the encoder alone, forward and backward; None where that is not computed alone.
        macs: multiply-adds of forward and backward; of a compiled network those of its eager form.
        bytes: that these read and write, see :class:`~spark_bench.profiling.limits.Counter`; None of a compiled one.
        matrix_rate, bandwidth: multiply-adds and bytes a second that the device did in the same run, and nothing else.
        matrix_share, bandwidth_share: of those, what forward and backward made use of.
        value: the loss of the first batch; equal for both engines up to rounding.
    """

    arch: str
    method: str
    seconds: dict[str, float]
    parts: dict[str, list[float]]
    peak_bytes: int
    encoder_peak_bytes: int | None
    macs: int
    bytes: int | None
    matrix_rate: float
    bandwidth: float
    matrix_share: float
    bandwidth_share: float | None
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
    stock: bool,
    compiled: bool = False,
    batches: Iterator[torch.Tensor] | None = None,
) -> list[Figure]:
    """Time the contestants on a network, in turn.

    Args:
        arch: timm name.
        input_size: side of the images in pixels.
        rounds: how often each takes a step.
        amp: compute in bf16 autocast.
        stock: measure mmpretrain's SparK too, where it has one of this network, and its MAE of a ViT-B.
        compiled: measure the packed engine through torch.compile too.
        batches: uint8 ``(B, 3, H, W)``, without end; noise when None.

    Returns:
        one of each contestant: packed, reference, compiled, mmpretrain's, MAE.

    Raises:
        InputError: for a network or a size that does not fit.
    """
    gc.collect()  # the networks of an earlier call, whose optimizers refer to themselves
    place, layout = torch.device(device), torch.channels_last if channels_last else torch.contiguous_format
    ours = methods_of_ours(compiled)
    field = [build_ours(arch, method, input_size, batch_size, mask_ratio, place, layout) for method in ours]
    if stock:
        field += [build_stock(arch, input_size, mask_ratio, place, layout)] if has_stock(arch) else []
        field.append(build_mae(input_size, place, layout))
    noise = _noise(batch_size, input_size, place)
    costs = {contestant.method: _costs(contestant, _load(noise, place, layout), amp) for contestant in field}
    if compiled:
        costs[COMPILED]['macs'] = costs['packed']['macs']
    batches = batches or itertools.repeat(noise)
    limits, rates = Device(place, amp), []
    taken: list[list[dict[tuple[str, str], float]]] = [[] for _ in field]
    for _ in range(rounds):
        rates.append((limits.matrix_rate(), limits.bandwidth()))
        for contestant, steps in zip(field, taken, strict=True):
            steps.append(_step(contestant, batches, layout, amp))
    limit = tuple(map(statistics.median, zip(*rates, strict=True)))
    return [_figure(one, steps, costs[one.method], *limit) for one, steps in zip(field, taken, strict=True)]


def _noise(batch_size, input_size, device):
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(256, (batch_size, 3, input_size, input_size), generator=generator).to(torch.uint8)
    return batch.pin_memory() if device.type == 'cuda' else batch  # as the loaders of recipes do


def _load(batch_B3HW, device, layout):
    """A batch on its device, normalised."""
    image_B3HW = batch_B3HW.to(device, non_blocking=True).float()
    mean, std = (image_B3HW.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return ((image_B3HW - mean) / std).contiguous(memory_format=layout)


def _costs(contestant: Contestant, image_B3HW, amp):
    """What does not vary from step to step, of the first ones: these also allocate, and build the kernels."""
    device = image_B3HW.device

    def run():
        torch.manual_seed(0)  # stochastic depth draws the same for both engines
        with computing(device, amp):
            loss = contestant.loss(image_B3HW)
        loss.backward()
        return loss

    def encode():
        torch.manual_seed(0)
        with computing(device, amp):
            maps = contestant.encode(image_B3HW)
        # The gradient of a sum, which takes no memory of its own.
        torch.autograd.backward(maps, [x_NCbb.new_ones(()).expand_as(x_NCbb) for x_NCbb in maps])

    value = run().item()
    counter = None if contestant.method == COMPILED else count(run)
    peaks = {'peak_bytes': peak_bytes(run, device), 'encoder_peak_bytes': None}
    if contestant.encode is not None:
        peaks['encoder_peak_bytes'] = peak_bytes(encode, device)
    contestant.wrapper.zero_grad()
    asked = {'macs': None, 'bytes': None} if counter is None else {'macs': counter.macs, 'bytes': counter.bytes}
    return {'value': value, **asked, **peaks}


def _step(contestant: Contestant, batches, layout, amp):
    """Seconds by ``(pass, part)`` of one training step."""
    marks, wrapper = contestant.marks, contestant.wrapper
    torch.manual_seed(0)
    marks.start()
    image_B3HW = _load(next(batches), marks.device, layout)
    marks.note(ends=('load', ''))
    with computing(marks.device, amp):
        loss = contestant.loss(image_B3HW)
    marks.note(ends=('forward', 'loss'), begins=('backward', 'loss'))
    wrapper.update_params(loss)
    marks.note(ends=('optimizer', ''))
    return marks.seconds()


def _figure(contestant, steps, cost, matrix_rate, bandwidth):
    seconds = {
        name: statistics.median(sum(took for key, took in step.items() if key[0] == name) for step in steps)
        for name in PASSES
    }
    seconds['step'] = statistics.median(sum(step.values()) for step in steps)
    parts = {
        part: [statistics.median(step.get((way, part), 0.0) for step in steps) for way in ('forward', 'backward')]
        for way, part in steps[0]
        if way == 'forward' and contestant.method != COMPILED
    }
    computed_s = seconds['forward'] + seconds['backward']
    return Figure(
        contestant.arch,
        contestant.method,
        seconds,
        parts,
        matrix_rate=matrix_rate,
        bandwidth=bandwidth,
        matrix_share=cost['macs'] / computed_s / matrix_rate,
        bandwidth_share=None if cost['bytes'] is None else cost['bytes'] / computed_s / bandwidth,
        **cost,
    )
