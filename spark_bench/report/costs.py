"""What a figure of a table costs: accuracy against computing time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spark_bench.records.schema import Record
from spark_bench.report.backbones import MARKERS, order_archs
from spark_bench.report.figures import TEXT_COLOUR, Drawing, dress, legend_above, method_colours, spoken
from spark_bench.tables.build import group_by_cell, order_methods
from spark_bench.tables.parts import Cell, Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class _Cost:
    """What one cell of a row cost, mean over seeds."""

    row: Row
    cell: Cell
    clock: float  # seconds
    gpu: float  # seconds, times GPUs
    whole: bool  # whether the pretraining is in it, where there was one
    known: bool  # whether every run says how many GPUs it had


def cost_chart(table: Table, records: Sequence[Record], name: str = 'cost') -> Drawing | None:
    """Accuracy and AP against what they cost: a point a measured row, a panel a column.

    The cost is the time of the run and of the pretraining that it started from, where its record is there, averaged
    over seeds: in GPU-hours if every run states how many GPUs it had (``setting``, key 'gpus'), else in hours by the
    clock. A row whose pretraining has no record shows a hollow point: its cost is the transfer's alone. None if fewer
    than two rows can be drawn.
    """
    panels = {i: found for i in table.percent_columns if len(found := _costs(table, i, records)) > 1}
    if not panels:
        return None
    costs = [cost for found in panels.values() for cost in found]
    gpu_hours = all(cost.known for cost in costs)
    short = not gpu_hours and max(cost.clock for cost in costs) < SECONDS_AN_HOUR
    unit = 'GPU-hours' if gpu_hours else f'{"minutes" if short else "hours"} by the clock'

    def amount(cost: _Cost) -> float:
        return (cost.gpu if gpu_hours else cost.clock) / (60 if short else SECONDS_AN_HOUR)

    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)

    def draw(figure: 'Figure') -> None:
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (i, found) in zip(grid, panels.items(), strict=False):
            _draw_costs(axes, table, found, [amount(cost) for cost in found])
            dress(axes, table.columns[i].label)
            axes.set_xlabel(unit)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        legend_by_method_and_arch(figure, grid[0], table, [cost.row for cost in costs])

    caption = (
        f'Against the {unit} of the run and of the pretraining that it started from, mean over seeds; vertical '
        'error bars: sample standard deviation over seeds.'
    )
    caption += '' if gpu_hours else ' How many GPUs worked is not known for every run, so time is not multiplied.'
    if not all(cost.whole for cost in costs):
        caption += ' Hollow: without its pretraining, of which there is no record.'
    words = [
        f'{cost.row.arch} {cost.row.label} {table.columns[i].label} {cost.cell.value:.1f} after '
        f'{amount(cost):.3g} {unit}'
        for i, found in panels.items()
        for cost in found
    ]
    title = f'Accuracy against {unit}'
    return Drawing(name, title, caption, spoken(title, words), (8.2, 0.9 + 2.9 * lines), draw)


def _costs(table: Table, i: int, records: Sequence[Record]) -> list[_Cost]:
    """Of the measured rows that have a value in column ``i``, where every run says how long it took."""
    found = []
    cells = group_by_cell(records)
    pretrainings = [r for r in records if r.kind == 'pretrain']
    for row in table.rows:
        runs = cells.get(('measured', table.columns[i].task, row.arch, row.method), [])
        if row.origin != 'measured' or row.cells[i].value is None or any(r.wall_time_s is None for r in runs):
            continue
        chains = [[run, *filter(None, [pretraining_of(run, pretrainings)])] for run in runs]
        clock = sum(sum(r.wall_time_s or 0 for r in chain) for chain in chains)
        gpu = sum(sum((r.wall_time_s or 0) * (_gpus_of(r) or 0) for r in chain) for chain in chains)
        found.append(
            _Cost(
                row,
                row.cells[i],
                clock / len(runs),
                gpu / len(runs),
                whole=all(len(chain) > 1 or not chain[0].weights for chain in chains),
                known=all(_gpus_of(r) is not None for chain in chains for r in chain),
            )
        )
    return found


def pretraining_of(record: Record, records: Sequence[Record]) -> Record | None:
    """The pretraining whose weights ``record`` started from; None where it has none or its record is not there."""
    config_hash = (record.weights or {}).get('config_hash')
    if not config_hash:
        return None
    found = [r for r in records if r.kind == 'pretrain' and r.config_hash == config_hash]
    # One pretraining may serve all seeds of what follows.
    return min(
        found, key=lambda r: ((r.arch, r.method) != (record.arch, record.method), r.seed != record.seed), default=None
    )


def _gpus_of(record: Record) -> float | None:
    """How many GPUs the run had, if its record says so."""
    number = (record.setting or {}).get('gpus')
    return number if isinstance(number, (int, float)) and number > 0 else None


def _draw_costs(axes: 'Axes', table: Table, costs: Sequence[_Cost], amounts: Sequence[float]) -> None:
    colours = method_colours(row.method for row in table.rows)
    archs = order_archs(row.arch for row in table.rows)
    for cost, amount in zip(costs, amounts, strict=True):
        colour = colours[cost.row.method]
        axes.errorbar(
            amount,
            cost.cell.value,
            cost.cell.std,
            color=colour,
            capsize=3,
            markersize=7,
            marker=MARKERS[archs.index(cost.row.arch) % len(MARKERS)],
            markerfacecolor=colour if cost.whole else 'none',
        )
    if min(amounts) > 0 and max(amounts) / min(amounts) > 20:
        axes.set_xscale('log')
    axes.margins(0.1)


def legend_by_method_and_arch(figure: 'Figure', axes: 'Axes', table: Table, rows: Sequence[Row]) -> None:
    """Above all panels: a colour a method of ``rows``, a marker a backbone where there are several."""
    colours = method_colours(row.method for row in table.rows)
    for method in order_methods(row.method for row in rows):
        axes.plot([], [], 'o', color=colours[method], label=method)
    all_archs = order_archs(row.arch for row in table.rows)
    archs = order_archs(row.arch for row in rows)
    for arch in archs if len(archs) > 1 else ():
        marker = MARKERS[all_archs.index(arch) % len(MARKERS)]
        axes.plot([], [], marker, color=TEXT_COLOUR, markerfacecolor='none', label=arch)
    legend_above(figure, [axes], 4)
