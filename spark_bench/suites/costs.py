"""What the cells of a suite will cost: GPU-hours and disk, estimated, and printed before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from spark_bench.configs import read_config
from spark_bench.models.methods import get_method
from spark_bench.places import shipped
from spark_bench.suites.definition import CellSpec, Suite
from spark_bench.suites.plan import Places
from spark_bench.suites.status import RECORDED, states_of

# A pass forward and backward is three forward ones, a multiply-add two operations.
_FLOP_PER_MAC = 6
# Operations a second that training reaches on an A100: from the two costs that SparK's authors report, ResNet-50 for
# 800 epochs in 1,536 GPU-hours (18e12) and ConvNeXt-B for 1,600 in about 4,000 (23e12).
FLOPS = 20e12
# Beside the network: 10^9 multiply-adds of SparK's decoder on 224 pixels, and of Mask R-CNN on 1280 × 800, whose
# network computes 20.4 times as much as on 224.
_DECODER_GMACS, _DETECTOR_GMACS, _DETECTOR_SCALE = 10.1, 180.0, 20.4
# Parameters beside the network: of that decoder at a width of 768, of Mask R-CNN's box head and of the rest.
_DECODER, _BOX_HEAD, _DETECTOR = 28e6, 12.8e6, 7e6
# Checkpoints on disk at a time (two are kept, a third is being written), and what each holds of a weight: itself, the
# optimizer's two moments, in fine-tuning the EMA.
_CHECKPOINTS, _HELD = 3, {'pretrain': 3, 'classification': 4, 'detection': 3}


@dataclass(frozen=True)
class Cost:
    """An estimate for one cell.

    Attributes:
        gpu_hours: of an A100; None where the suite says too little.
        cpu_hours: of a CPU core, as the suite says; None where it does not.
        peak_gb, kept_gb: on disk, while it runs and afterwards.
    """

    gpu_hours: float | None
    cpu_hours: float | None
    peak_gb: float
    kept_gb: float


def estimate(spec: CellSpec) -> Cost:
    """What a cell will cost, from the multiply-adds of its network and the images that it sees.

    Raises:
        InputError: for an architecture that its kind of run cannot have.
    """
    import timm  # loads torch, which takes seconds

    # The backbone of a detector may be mmdet's own.
    network = None if spec.kind == 'detection' and not timm.is_model(spec.arch) else _inspect(spec.arch)
    # A network of one size is counted at that.
    counted = network and network['multiply_adds'] / 1e9 * (224 / network['input_size']) ** 2
    gmacs = spec.gmacs or (counted and _gmacs(spec, counted))
    hours = None
    if gmacs and spec.images:
        scale = get_method(spec.method).schedule_scale if spec.kind == 'pretrain' else 1.0
        hours = _FLOP_PER_MAC * gmacs * 1e9 * spec.images * scale / FLOPS / 3600
    kept, trained = _parameters(spec, network['parameters'] if network else 100e6)
    peak = kept + _CHECKPOINTS * _HELD[spec.kind] * trained
    return Cost(hours, None if spec.weight is None else spec.weight / 3600, peak * 4 / 1e9, kept * 4 / 1e9)


@lru_cache
def _inspect(arch):
    from spark_bench.models.complexity import inspect_network

    return inspect_network(arch)


def _gmacs(spec, network):
    """Of an image of the recipe's size, from those of the network on 224 pixels."""
    if spec.kind == 'detection':
        return _DETECTOR_GMACS + _DETECTOR_SCALE * network
    model, side = _recipe(spec)
    beside = _beside_gmacs(spec.arch, _width(spec, model)) if model.get('type') == 'SparKPretrainer' else 0.0
    return (network + beside) * (side / 224) ** 2


def _width(spec, model):
    """That of SparK's decoder, as a part of the paper's."""
    return spec.overrides.get('model.decoder_width', model.get('decoder_width', 768)) / 768


@lru_cache
def _beside_gmacs(arch, width):
    """Of the decoder, ``width`` times as wide as the paper's, and of the densify layers: 3 × 3, the coarsest 1 × 1."""
    from spark_bench.models.backbones import pyramid_channels

    scales = zip((56, 28, 14, 7), (9, 9, 9, 1), pyramid_channels(arch), (96, 192, 384, 768), strict=True)
    densify = sum(side**2 * taps * inputs * outputs for side, taps, inputs, outputs in scales) / 1e9
    return _DECODER_GMACS * width**2 + densify * width


def _recipe(spec):
    """``(model, side)``: of the recipe the model's settings, and the side of the images that it trains on."""
    path = shipped(spec.recipe)
    model, side = _read(path, path.stat().st_mtime_ns)
    places = ('train_dataloader.dataset.input_size', 'train_dataloader.dataset.transform.input_size')
    return model, next((spec.overrides[place] for place in places if place in spec.overrides), side)


@lru_cache(maxsize=64)
def _read(path, _changed):
    cfg = read_config(path, 'the recipe', import_custom_modules=False)
    dataset = cfg.get('train_dataloader', {}).get('dataset', {})
    return cfg.get('model', {}), dataset.get('input_size') or dataset.get('transform', {}).get('input_size', 224)


def _parameters(spec, network):
    """``(those of the files that stay, those that are trained)``, in numbers of weights."""
    if spec.kind == 'classification':
        return 4 * network, network  # the last and the best, raw and EMA
    model, _ = _recipe(spec)
    if spec.kind == 'pretrain' and model.get('type') != 'SparKPretrainer':
        # A slow copy of the network, or a decoder.
        return 3 * network, 2 * network
    if spec.kind == 'pretrain':
        trained = network + _DECODER * _width(spec, model) ** 2
        return network + trained, trained
    neck, box_head = model.get('neck'), model.get('roi_head', {}).get('bbox_head')
    width = neck.get('out_channels', 256) / 256 if isinstance(neck, dict) else 1.0
    hidden = box_head.get('fc_out_channels', 1024) / 1024 if isinstance(box_head, dict) else 1.0
    trained = network + _BOX_HEAD * width * hidden + _DETECTOR * width**2
    return trained, trained


def print_plan(suite: Suite, specs: Sequence[CellSpec], places: Places) -> None:
    """Print what would run, with estimated hours and disk."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = 1000  # a name that is cut is of no use to a program
    table = Table(
        title=Text(suite.title), caption=Text(suite.note), box=SIMPLE_HEAD, title_justify='left', caption_justify='left'
    )
    for heading in ('cell', 'state', 'starts from', 'recipe', 'hours', 'disk'):
        is_number = heading in ('hours', 'disk')
        table.add_column(
            heading, justify='right' if is_number else 'left', overflow='fold', no_wrap=is_number or heading == 'state'
        )
    missing = []
    for spec, state in zip(specs, [state.word for state in states_of(specs, suite, places)], strict=True):
        cost = estimate(spec)
        if state != RECORDED:
            missing.append(cost)
        table.add_row(
            spec.name,
            state,
            spec.needs.name if spec.needs else spec.start,
            spec.recipe,
            _hours_of(cost),
            _size(cost.peak_gb),
        )
    console.print(table)
    console.print(_sum(missing), soft_wrap=True, highlight=False)


def _sum(costs):
    """The last line of the plan."""
    if not costs:
        return 'to do: nothing'
    gpu = sum(cost.gpu_hours or 0 for cost in costs)
    cpu = sum(cost.cpu_hours or 0 for cost in costs if cost.gpu_hours is None)
    unknown = sum(cost.gpu_hours is None and cost.cpu_hours is None for cost in costs)
    parts = [f'{_number(gpu)} hours of an A100 (estimated from multiply-adds)'] if gpu else []
    parts += [f'{_number(cpu)} hours of a CPU core (as the suite tells)'] if cpu else []
    parts += [f'{unknown} {"cell" if unknown == 1 else "cells"} of unknown length'] if unknown else []
    more = max(cost.peak_gb - cost.kept_gb for cost in costs)
    return (
        f'to do: {" and ".join(parts)}; {_size(sum(cost.kept_gb for cost in costs))} stay on disk, and up to '
        f'{_size(more)} more for each cell that runs'
    )


def _hours_of(cost):
    if cost.gpu_hours is not None:
        return f'{_number(cost.gpu_hours)} GPU'
    return '?' if cost.cpu_hours is None else f'{_number(cost.cpu_hours)} CPU'


def _number(value):
    return f'{value:,.0f}' if value >= 10 else f'{value:.2g}'


def _size(gigabytes):
    return f'{gigabytes:,.1f} GB' if gigabytes >= 0.95 else f'{max(1, round(gigabytes * 1000))} MB'
