"""Time and activation memory of the packed engine against the plain masked-dense definition, in one run."""

import json
import os
import statistics
import time
import warnings
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

# The profiler's own log (tracing marks, the search for a GPU) would stand in the middle of the table; it reads this
# when torch is loaded.
os.environ.setdefault('KINETO_LOG_LEVEL', '6')

import torch
from rich.console import Console
from rich.table import Table

from pretrain import VisibleLayout, build_spark, random_mask
from spark_bench.devices import choose_device
from spark_bench.engine.memory import keep_freed_memory
from spark_bench.errors import InputError
from spark_bench.files import claim_output, write_atomically

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
        peak_bytes: most memory in use at a time, beyond weights, their gradients and the pictures.
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


def main(args):
    """Run ``spark-bench profile``; return the exit status."""
    args.device = str(choose_device(args.device))
    if args.json:
        claim_output(args.json, rb'\{\s*"settings":\s*\{\s*"input_size":', '--json')
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.keep_memory:
        keep_freed_memory()
    figures = []
    for arch in args.arch:
        figures += measure(arch, args)
    _show(figures, args)
    if args.json:
        _write(figures, args)
    return 0


def measure(arch, args):
    """Time both engines on the same pictures, masks and weights, in turn.

    Args:
        arch: timm name.
        args: options of ``spark-bench profile``.

    Returns:
        list of :class:`Figure`, encoder first.

    Raises:
        InputError: for a network or a size that does not fit.
    """
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    models = {}
    for engine in ENGINES:
        torch.manual_seed(0)
        model = build_spark(arch, args.input_size, args.mask_ratio, engine=engine)
        models[engine] = model.to(args.device, memory_format=layout).train()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(args.batch_size, 3, args.input_size, args.input_size, generator=generator)
    image = image.to(args.device, memory_format=layout)
    active = random_mask(args.batch_size, models['packed'].grid, args.mask_ratio, generator)
    figures = []
    for part in PARTS:
        timed = {engine: [] for engine in ENGINES}
        for engine in ENGINES:  # the first run allocates, and builds the kernels
            _run_once(models[engine], part, image, active, args)
        peaks = {engine: _peak_bytes(models[engine], part, image, active, args) for engine in ENGINES}
        for _ in range(args.rounds):
            for engine in ENGINES:
                models[engine].zero_grad()
                timed[engine].append(_run_once(models[engine], part, image, active, args))
        for engine in ENGINES:
            forward, backward, values = zip(*timed[engine], strict=True)
            total = [a + b for a, b in zip(forward, backward, strict=True)]
            figures.append(Figure(arch, part, engine, *map(statistics.median, (forward, backward, total)),
                                  peaks[engine], values[0]))
    return figures


def _run_once(model, part, image_B3HW, active_B1ff, args):
    """``(forward seconds, backward seconds, value)`` of one run."""
    torch.manual_seed(0)  # stochastic depth draws the same for both engines
    _wait(args.device)
    start = time.perf_counter()
    with torch.autocast(torch.device(args.device).type, torch.bfloat16) if args.amp else nullcontext():
        outputs = [model(image_B3HW, active_B1ff)] if part == 'step' else _encode(model, image_B3HW, active_B1ff)
    _wait(args.device)
    middle = time.perf_counter()
    # The gradient of a sum, which takes no memory of its own.
    torch.autograd.backward(outputs, [output.new_ones(()).expand_as(output) for output in outputs])
    _wait(args.device)
    end = time.perf_counter()
    return middle - start, end - middle, sum(output.detach().double().sum().item() for output in outputs)


def _encode(model, image_B3HW, active_B1ff):
    layout = VisibleLayout(active_B1ff, image_B3HW.device)
    if model.encoder.engine == 'packed':
        return model.encoder(image_B3HW, layout)
    return model.encoder.encode_dense(image_B3HW, layout)


def _wait(device):
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)


def _peak_bytes(model, part, image, active, args):
    """Peak of one run after a first one: the gradients of the weights are there, and are added to in place."""
    if args.device.startswith('cuda'):
        _wait(args.device)
        before = torch.cuda.memory_allocated(args.device)
        torch.cuda.reset_peak_memory_stats(args.device)
        _run_once(model, part, image, active, args)
        return torch.cuda.max_memory_allocated(args.device) - before
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Warning: Profiler clears events')  # there is one cycle here
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            _run_once(model, part, image, active, args)
    changes = sorted((event.start_ns(), event.nbytes()) for event in profiler.profiler.kineto_results.events()
                     if event.name() == '[memory]')
    in_use = peak = 0
    for _, change in changes:
        in_use += change
        peak = max(peak, in_use)
    return peak


def _show(figures, args):
    where = torch.cuda.get_device_name(args.device) if args.device.startswith('cuda') else (
        f'CPU, {torch.get_num_threads()} threads')
    kind = 'bf16 autocast' if args.amp else 'float32'
    table = Table(title=f'Forward + backward, {args.input_size} px, batch {args.batch_size}, mask {args.mask_ratio}, '
                        f'{kind}, {where}; median of {args.rounds}')
    for column in ('network', 'part', 'packed', 'reference', 'speed-up', 'packed MB', 'reference MB', 'memory',
                   'difference'):
        table.add_column(column, justify='left' if column in ('network', 'part') else 'right')
    for packed, reference in zip(figures[::2], figures[1::2], strict=True):
        table.add_row(
            packed.arch, packed.part, f'{packed.total_s:.3f} s', f'{reference.total_s:.3f} s',
            f'{reference.total_s / packed.total_s:.2f}×', f'{packed.peak_bytes / 1e6:.0f}',
            f'{reference.peak_bytes / 1e6:.0f}', f'{packed.peak_bytes / reference.peak_bytes:.2f}×',
            f'{abs(packed.value / reference.value - 1):.0e}')
    Console(width=120).print(table)


def _write(figures, args):
    settings = {key: getattr(args, key) for key in
                ('input_size', 'batch_size', 'mask_ratio', 'rounds', 'device', 'amp', 'channels_last', 'keep_memory')}
    contents = {'settings': settings | {'threads': torch.get_num_threads(), 'torch': torch.__version__},
                'figures': [asdict(figure) for figure in figures]}
    try:
        write_atomically(Path(args.json), json.dumps(contents, indent=1).encode())
    except OSError as error:
        raise InputError(f'--json {args.json} cannot be written: {error.strerror}') from error
