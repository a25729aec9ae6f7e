"""Figures drawn from the rows of a table: bars of values and of gains over the baseline, and points of values."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spark_bench.report.figures import (
    TEXT_COLOUR,
    Drawing,
    cell_words,
    dagger_note,
    dress,
    legend_above,
    method_colours,
    not_drawn,
    spoken,
)
from spark_bench.tables.parts import Row, Table
from spark_bench.tables.text import ABSENT, DAGGER, delta_text, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 40  # rows in a figure of points
BACKBONES = 6  # in a figure of bars: further ones are named, not drawn
ERROR_BARS = {'ecolor': TEXT_COLOUR, 'elinewidth': 1, 'capsize': 3}


def bar_chart(table: Table, name: str = 'bars') -> Drawing | None:
    """The table as grouped bars: a panel a backbone, a group a column, a bar a row.

    Error bars show the sample standard deviation where a cell has several seeds; a missing value has no bar. Losses are
    left out, as they share no axis with percentages. None if there is nothing to draw.
    """
    columns = table.percent_columns
    archs = [
        arch
        for arch in table.archs
        if any(row.cells[i].value is not None for row in _rows(table, arch) for i in columns)
    ]
    if not archs:
        return None
    shown = archs[:BACKBONES]

    def draw(figure: 'Figure') -> None:
        colours = method_colours(row.method for row in table.rows)
        panels = figure.subplots(len(shown), 1, squeeze=False, sharey=True)[:, 0]
        for panel, arch in zip(panels, shown, strict=True):
            _draw_bars(panel, table, arch, columns, colours)
            panel.set_ylabel('percent')
        legend_above(figure, panels[:1])

    caption = 'The values of the table; error bars show the sample standard deviation over seeds.'
    return Drawing(
        name,
        table.title or 'Values',
        caption + not_drawn(archs[BACKBONES:]) + dagger_note(table.cells),
        spoken('Bar chart', cell_words(table, archs, columns, value_text)),
        (8.2, 0.5 + 3.1 * len(shown)),
        draw,
    )


def _draw_bars(axes: 'Axes', table: Table, arch: str, columns: Sequence[int], colours: Mapping[str, str]) -> None:
    rows = _rows(table, arch)
    width = 0.84 / len(rows)
    for position, row in enumerate(rows):
        for group, i in enumerate(columns):
            cell = row.cells[i]
            # An invisible bar keeps the method in the legend, which takes its labels from the first group.
            label = row.label if group == 0 else None
            x = group + (position - (len(rows) - 1) / 2) * width
            axes.bar(
                x,
                cell.value or 0,
                width * 0.92,
                color=colours[row.method],
                label=label,
                yerr=cell.std,
                error_kw=ERROR_BARS,
                hatch=_hatch(row),
            )
            top = ABSENT if cell.value is None else f'{cell.value:.1f}{"" if cell.verified else DAGGER}'
            axes.annotate(
                top,
                (x, (cell.value or 0) + (cell.std or 0)),
                (0, 3),
                textcoords='offset points',
                ha='center',
                fontsize=9,
            )
    axes.set_xticks(range(len(columns)), [table.columns[i].label for i in columns])
    axes.tick_params(axis='x', length=0)
    axes.margins(x=0.02, y=0.12)
    dress(axes, arch, 'y')
    axes.set_axisbelow(True)


def gain_bars(table: Table, name: str = 'gains') -> Drawing | None:
    """Each row's difference from the baseline as a bar: the figure of an ablation.

    A line of panels a backbone, a panel a column. Bars begin at zero, which is the baseline, so that their lengths can
    be compared where the values themselves differ by little. Error bars show the sample standard deviation of the row's
    own value, the grey band that of the baseline. Backbones with a single row beside the baseline are left to the
    scaling curves where there are several of them. None if fewer than two rows have a baseline to stand against.
    """
    columns = [i for i in table.percent_columns if any(row.cells[i].delta is not None for row in table.rows)]
    archs = [arch for arch in table.archs if any(c.delta is not None for r in _rows(table, arch) for c in r.cells)]
    if len(archs) > 1:
        archs = [arch for arch in archs if len({row.method for row in _rows(table, arch)}) > 2]
    if sum(row.arch in archs and _has_gain(row, columns) for row in table.rows) < 2:
        return None
    # A row that was to be measured stays, to be seen as missing; what nobody published is not missed.
    bars = {
        arch: [
            row
            for row in _rows(table, arch)
            if row.method != table.baseline and (row.origin == 'measured' or _has_gain(row, columns))
        ]
        for arch in archs[:BACKBONES]
    }
    width = 2 if len(columns) == 4 else min(len(columns), 3)
    lines = [(arch, columns[at : at + width]) for arch in bars for at in range(0, len(columns), width)]

    def draw(figure: 'Figure') -> None:
        ratios = {'height_ratios': [len(bars[arch]) + 1 for arch, _ in lines]}
        grid = figure.subplots(len(lines), width, squeeze=False, sharey='row', gridspec_kw=ratios)
        for panels, (arch, chosen) in zip(grid, lines, strict=True):
            _draw_line_of_gains(panels, table, arch, chosen, bars[arch])
            if len(archs) > 1 and chosen[0] == columns[0]:
                title = f'{arch}\n{panels[0].get_title(loc="left")}'
                panels[0].set_title(title, loc='left', fontsize=11, fontweight='bold')

    caption = (
        f'Difference from {table.baseline} on the same backbone, in points. Error bars: sample standard '
        f'deviation over seeds of the value itself; grey band: that of {table.baseline}; without either, one '
        'seed, whose noise is unknown.'
    )
    title = f'Gains over {table.baseline}'
    return Drawing(
        name,
        title,
        caption + not_drawn(archs[BACKBONES:]) + dagger_note(cell for cell in table.cells if cell.delta is not None),
        spoken(title, cell_words(table, archs, columns, delta_text)),
        (8.2, 0.8 + sum(0.3 * len(bars[arch]) + 0.9 for arch, _ in lines)),
        draw,
    )


def _draw_line_of_gains(
    panels: Sequence['Axes'], table: Table, arch: str, columns: Sequence[int], rows: Sequence[Row]
) -> None:
    for axes, i in zip(panels, columns, strict=False):
        _draw_gains(axes, table, arch, i, rows)
        # Leaves room for a number beside the longest bar: half an inch, as a share of the panel.
        share = 0.075 * len(panels)
        axes.margins(x=share / (1 - 2 * share))
    for axes in panels[len(columns) :]:
        axes.set_axis_off()
    panels[0].set_yticks(range(len(rows)), [row.label for row in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)


def _draw_gains(axes: 'Axes', table: Table, arch: str, i: int, rows: Sequence[Row]) -> None:
    colours = method_colours(row.method for row in table.rows)
    base = next((r.cells[i] for r in _rows(table, arch) if r.method == table.baseline and r.cells[i].std), None)
    if base:
        axes.axvspan(-base.std, base.std, color=TEXT_COLOUR, alpha=0.1, linewidth=0)
    for place, row in enumerate(rows):
        cell = row.cells[i]
        if cell.delta is None:
            axes.annotate(ABSENT, (0, place), (4, 0), textcoords='offset points', va='center', fontsize=9)
            continue
        axes.barh(
            place, cell.delta, 0.68, color=colours[row.method], xerr=cell.std, error_kw=ERROR_BARS, hatch=_hatch(row)
        )
        side = 1 if cell.delta >= 0 else -1
        axes.annotate(
            delta_text(cell, table.columns[i]),
            (cell.delta + side * (cell.std or 0), place),
            (side * 4, 0),
            textcoords='offset points',
            ha='left' if side > 0 else 'right',
            va='center',
            fontsize=9,
        )
    axes.update_datalim([(-0.1, 0), (0.1, 0)])  # lest rounding errors fill a panel where nothing differs
    axes.axvline(0, color=TEXT_COLOUR, linewidth=1)
    axes.spines['left'].set_visible(False)
    axes.tick_params(axis='y', length=0)
    dress(axes, f'Δ {table.columns[i].label}', 'x')
    axes.set_axisbelow(True)


def value_dots(table: Table, name: str = 'values') -> Drawing | None:
    """Each value as a point, a line a row, a panel a column: for comparing rows of different backbones.

    Points and not bars, because the axes do not begin at zero. Published figures are hollow. Error bars show the sample
    standard deviation over seeds. None if there is nothing to draw.
    """
    known = [i for i in table.percent_columns if any(row.cells[i].value is not None for row in table.rows)]
    columns = known[:3]
    rows = [row for row in table.rows if any(row.cells[i].value is not None for i in columns)]
    if not rows:
        return None
    shown = rows[:DOTS]

    def draw(figure: 'Figure') -> None:
        colours = method_colours(row.method for row in table.rows)
        panels = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
        for axes, i in zip(panels, columns, strict=True):
            for place, row in enumerate(shown):
                _draw_dot(axes, place, row, i, colours[row.method])
            axes.tick_params(axis='y', length=0)
            axes.margins(x=0.2)
            dress(axes, table.columns[i].label)
            axes.set_axisbelow(True)
        panels[0].set_yticks(range(len(shown)), [f'{row.arch} · {row.label}' for row in shown])
        panels[0].set_ylim(len(shown) - 0.4, -0.6)

    left_out = [table.columns[i].label for i in known[3:]]
    left_out += [f'{len(rows) - DOTS} further rows'] if len(rows) > DOTS else []
    caption = (
        'Percent; the axes do not begin at zero. Error bars: sample standard deviation over seeds. Hollow: published.'
    )
    words = cell_words(table, [row.arch for row in shown], columns, value_text)
    return Drawing(
        name,
        table.title or 'Values',
        caption + not_drawn(left_out) + dagger_note(row.cells[i] for row in shown for i in columns),
        spoken('Values', words),
        (8.2, 0.9 + 0.3 * len(shown)),
        draw,
    )


def _draw_dot(axes: 'Axes', place: int, row: Row, i: int, colour: str) -> None:
    cell = row.cells[i]
    if cell.value is None:
        return
    axes.errorbar(
        cell.value,
        place,
        xerr=cell.std,
        marker='o',
        markersize=7,
        color=colour,
        capsize=3,
        markerfacecolor='none' if row.origin == 'published' else colour,
    )
    axes.annotate(
        f'{cell.value:.1f}{"" if cell.verified else DAGGER}',
        (cell.value, place),
        (0, 6),
        textcoords='offset points',
        ha='center',
        fontsize=8,
    )


def _rows(table: Table, arch: str) -> list[Row]:
    return [row for row in table.rows if row.arch == arch]


def _has_gain(row: Row, columns: Sequence[int]) -> bool:
    return any(row.cells[i].delta is not None for i in columns)


def _hatch(row: Row) -> str | None:
    """How the bars of a row are filled: published figures are not to be taken for measured ones."""
    return '//' if row.origin == 'published' else None
