"""How well a network transfers against how well it solved its pretraining."""

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from spark_bench.records.schema import Record
from spark_bench.report.backbones import MARKERS, order_archs
from spark_bench.report.costs import legend_by_method_and_arch, pretraining_of
from spark_bench.report.figures import Drawing, dress, method_colours, spoken
from spark_bench.tables.build import group_by_cell
from spark_bench.tables.parts import Cell, Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Point(NamedTuple):
    row: Row
    cell: Cell
    loss: float  # of the pretrainings, mean over the runs that started from them


def transfer_chart(table: Table, records: Sequence[Record], name: str = 'transfer') -> Drawing | None:
    """Accuracy and AP against the loss of the pretraining: a point a measured row, a panel a column.

    None if fewer than three rows have a pretraining with a loss on record.
    """
    panels = {i: found for i in table.percent_columns if len(found := _points(table, i, records)) > 2}
    if not panels:
        return None
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)

    def draw(figure: 'Figure') -> None:
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (i, points) in zip(grid, panels.items(), strict=False):
            _draw_points(axes, table, points)
            dress(axes, table.columns[i].label)
            axes.set_xlabel('loss of pretraining')
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        legend_by_method_and_arch(figure, grid[0], table, [point.row for points in panels.values() for point in points])

    caption = (
        'Against the last loss of the pretraining that it started from; error bars: sample standard deviation over '
        'seeds. Rows whose losses are of different tasks are not comparable along the axis.'
    )
    words = [
        f'{row.arch} {row.label} {table.columns[i].label} {cell.value:.1f} after a loss of {loss:.3f}'
        for i, points in panels.items()
        for row, cell, loss in points
    ]
    title = 'Transfer against the loss of pretraining'
    return Drawing(name, title, caption, spoken(title, words), (8.2, 0.9 + 2.9 * lines), draw)


def _points(table: Table, i: int, records: Sequence[Record]) -> list[_Point]:
    cells = group_by_cell(records)
    pretrainings = [record for record in records if record.kind == 'pretrain']
    found = []
    for row in table.rows:
        runs = cells.get(('measured', table.columns[i].task, row.arch, row.method), [])
        starts = [pretraining_of(run, pretrainings) for run in runs]
        losses = [start.metrics.get('loss') for start in starts if start is not None]
        known = [loss for loss in losses if loss is not None]
        if row.origin == 'measured' and row.cells[i].value is not None and known:
            found.append(_Point(row, row.cells[i], mean(known)))
    return found


def _draw_points(axes: 'Axes', table: Table, points: Sequence[_Point]) -> None:
    colours = method_colours(row.method for row in table.rows)
    archs = order_archs(row.arch for row in table.rows)
    for row, cell, loss in points:
        marker = MARKERS[archs.index(row.arch) % len(MARKERS)]
        axes.errorbar(loss, cell.value, cell.std, color=colours[row.method], capsize=3, markersize=7, marker=marker)
    axes.margins(0.1)
