"""A profile on a terminal: what a step costs, and its parts."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from spark_bench.profiling.contestants import COMPILED, has_stock
from spark_bench.profiling.measuring import PASSES, Figure

_OURS = ('packed', COMPILED)
_NOTES = (
    'Speed-up: of the whole step, over the reference. Memory: beyond weights, their gradients and the images. GMAC, '
    'GB: multiply-adds, and bytes read and written as if no tensor stayed in a cache, 10⁹; beside them the rates of a '
    'matrix product and of a copy, measured between the steps, and what forward and backward make of those.',
    'Parts: milliseconds forward + backward. The first stage has the stem, "loss" the projection to pixels.',
)


def show(figures: Sequence[Figure], settings: Mapping[str, Any], rates: Mapping[int, float]) -> None:
    """Print the tables.

    Args:
        settings: of the command.
        rates: images a second of the loader alone, by number of processes; none of noise.
    """
    console = Console(width=120)
    groups = [list(group) for _, group in groupby(figures, key=_packed_before(figures))]
    console.print(_steps(groups, settings))
    console.print(_limits(groups))
    for group in groups:
        console.print(_parts(group))
    for note in _NOTES:
        console.print(note)
    if settings['stock']:
        without = [group[0].arch for group in groups if not has_stock(group[0].arch)]
        if without:
            console.print(f'mmpretrain has no SparK of {", ".join(without)}.')
    if rates:
        shown = ', '.join(f'{rate:.0f} by {number or "this process"}' for number, rate in rates.items())
        console.print(f'The loader alone, images a second by number of processes: {shown}.')
    else:
        console.print('The loader was not measured, the images are noise: --data-root gives others.')


def _packed_before(figures):
    """A key that is the same for all that was measured in turn: the packed engine comes first."""
    number = 0

    def key(figure):
        nonlocal number
        number += figure.method == 'packed'
        return number

    return key


def _steps(groups, settings):
    where = (
        torch.cuda.get_device_name(settings['device'])
        if settings['device'].startswith('cuda')
        else f'CPU, {torch.get_num_threads()} threads'
    )
    kind = 'bf16 autocast' if settings['amp'] else 'float32'
    table = Table(
        title=f'A training step, {settings["input_size"]} px, batch {settings["batch_size"]}, mask '
        f'{settings["mask_ratio"]}, {kind}, {where}; seconds, median of {settings["rounds"]}'
    )
    _add_columns(table, *PASSES, 'step', 'images/s', 'speed-up', 'difference')
    for group in groups:
        reference = next(figure for figure in group if figure.method == 'reference')
        for figure in group:
            took = figure.seconds['step']
            table.add_row(
                figure.arch,
                figure.method,
                *(f'{figure.seconds[name]:.3f}' for name in (*PASSES, 'step')),
                f'{settings["batch_size"] / took:.1f}',
                f'{reference.seconds["step"] / took:.2f}×',
                f'{abs(figure.value / reference.value - 1):.0e}' if figure.method in _OURS else '',
            )
        table.add_section()
    return table


def _limits(groups):
    table = Table(title='Memory, and forward and backward beside what the device can do')
    _add_columns(table, 'MB', 'encoder, MB', 'GMAC', 'GB', 'of GMAC/s', '', 'of GB/s', '')
    for group in groups:
        for figure in group:
            encoder = figure.encoder_peak_bytes
            table.add_row(
                figure.arch,
                figure.method,
                f'{figure.peak_bytes / 1e6:.0f}',
                '' if encoder is None else f'{encoder / 1e6:.0f}',
                f'{figure.macs / 1e9:.1f}',
                '' if figure.bytes is None else f'{figure.bytes / 1e9:.1f}',
                f'{figure.matrix_rate / 1e9:.0f}',
                f'{figure.matrix_share:.0%}',
                f'{figure.bandwidth / 1e9:.1f}',
                '' if figure.bandwidth_share is None else f'{figure.bandwidth_share:.0%}',
            )
        table.add_section()
    return table


def _add_columns(table, *numbers):
    for name in ('network', 'code'):
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify='right', no_wrap=True)


def _parts(group):
    table = Table(title=f'Parts of {group[0].arch}')
    table.add_column('part')
    for figure in group:
        table.add_column(figure.method, justify='right')
    parts = dict.fromkeys(part for figure in group for part in figure.parts if part != 'loss')
    for part in (*parts, 'loss'):
        cells = (figure.parts.get(part) for figure in group)
        table.add_row(part, *('' if cell is None else ' + '.join(f'{1e3 * way:.1f}' for way in cell) for cell in cells))
    return table
