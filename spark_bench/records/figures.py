"""Figures as SVG text, drawn from the same rows as the table."""

import io
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spark_bench.records.schema import Record
from spark_bench.records.table import METHODS, Table, order_methods, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ['bar_chart', 'loss_curves', 'method_colours']

# Okabe and Ito's palette, told apart by the colour-blind too, darkened or lightened so that each has a
# contrast of about 3:1 on white and on near-black; the baseline is the quiet one.
COLOURS = {
    'scratch': '#8b949e',
    'spark': '#2f81f7',
    'no_sparse': '#d2721b',
    'no_hierarchy': '#1a9e77',
    'black_mosaic': '#bf5fa8',
}
FURTHER_COLOURS = ('#b08800', '#4b9fc4', '#cf4a4a', '#7a6fd0', '#6f8f3a')
# Stands for the colour of the surrounding text while matplotlib draws; no other colour may equal it.
TEXT_COLOUR = '#010203'
STYLE = {
    'svg.fonttype': 'none',  # text stays text: it can be searched, read aloud and set in the page's font
    'svg.hashsalt': 'spark_bench',  # without a salt the identifiers are random
    'font.family': 'sans-serif',
    'font.size': 11,
    'text.color': TEXT_COLOUR,
    'axes.edgecolor': TEXT_COLOUR,
    'axes.labelcolor': TEXT_COLOUR,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.unicode_minus': True,
    'xtick.color': TEXT_COLOUR,
    'ytick.color': TEXT_COLOUR,
    'legend.frameon': False,
}


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour for each method, the same in every figure of one report."""
    further = itertools.cycle(FURTHER_COLOURS)
    return {m: COLOURS[m] if m in METHODS else next(further) for m in order_methods(methods)}


def bar_chart(table: Table, prefix: str = 'bars') -> str | None:
    """The table as grouped bars: a panel a backbone, a group a column, a bar a row; SVG text.

    Error bars show the sample standard deviation where a cell has several seeds; a missing value has no
    bar. Losses are left out, as they share no axis with percentages. `prefix` goes before every identifier,
    so that several figures can stand in one page. None if there is nothing to draw.
    """
    columns = [i for i, column in enumerate(table.columns) if column.is_percent]
    archs = [
        arch
        for arch in table.archs
        if any(row.cells[i].value is not None for row in table.rows for i in columns if row.arch == arch)
    ]
    if not archs:
        return None

    def draw(figure: 'Figure') -> None:
        colours = method_colours([row.method for row in table.rows])
        panels = figure.subplots(len(archs), 1, squeeze=False, sharey=True)[:, 0]
        for panel, arch in zip(panels, archs, strict=True):
            _draw_bars(panel, table, arch, columns, colours)
            panel.set_title(arch, loc='left', fontsize=11, fontweight='bold')
            panel.set_ylabel('percent')
        _legend_above(figure, panels[0])

    values = [
        f'{row.arch} {row.label} {table.columns[i].label} {value_text(row.cells[i], table.columns[i])}'
        for row in table.rows
        for i in columns
    ]
    return _svg(draw, (8.2, 0.5 + 3.1 * len(archs)), prefix, 'Bar chart. ' + '; '.join(values))


def _draw_bars(axes: 'Axes', table: Table, arch: str, columns: Sequence[int], colours: dict[str, str]) -> None:
    rows = [row for row in table.rows if row.arch == arch]
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
                error_kw={'ecolor': TEXT_COLOUR, 'elinewidth': 1, 'capsize': 3},
                hatch='//' if row.origin == 'published' else None,
            )
            top = f'{cell.value:.1f}' if cell.value is not None else '–'
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
    axes.grid(axis='y', color=TEXT_COLOUR, alpha=0.15, linewidth=0.8)
    axes.set_axisbelow(True)


def loss_curves(records: Sequence[Record], task: str, prefix: str | None = None) -> str | None:
    """The curve 'loss' of the records of `task`: a panel a backbone, a colour a method; SVG text.

    Faint lines are the logged values, strong ones their moving average over a twentieth of the run; each
    seed has its own line. None if no record has such a curve.
    """
    chosen = [r for r in records if r.task == task and r.origin == 'measured' and len(r.curves.get('loss', ())) > 1]
    if not chosen:
        return None
    archs = sorted({r.arch for r in chosen})

    def draw(figure: 'Figure') -> None:
        colours = method_colours([r.method for r in records])
        panels = figure.subplots(len(archs), 1, squeeze=False)[:, 0]
        for panel, arch in zip(panels, archs, strict=True):
            _draw_curves(panel, [r for r in chosen if r.arch == arch], colours)
            panel.set_title(arch, loc='left', fontsize=11, fontweight='bold')
            panel.set_ylabel('loss')
        panels[-1].set_xlabel('step')
        _legend_above(figure, panels[0])

    ends = [f'{r.arch} {r.method} from {r.curves["loss"][0][1]} to {r.curves["loss"][-1][1]}' for r in chosen]
    size = (8.2, 0.6 + 2.9 * len(archs))
    return _svg(draw, size, prefix or f'loss-{task}', f'Loss curves, {task}. ' + '; '.join(ends))


def _draw_curves(axes: 'Axes', records: Sequence[Record], colours: dict[str, str]) -> None:
    labelled = set()
    lows, highs = [], []
    for method in order_methods(r.method for r in records):
        for record in sorted((r for r in records if r.method == method), key=lambda r: r.seed):
            steps, values = np.array(record.curves['loss'], dtype=float).T
            smooth = moving_average(values, max(1, len(values) // 20))
            label = None if method in labelled else method
            labelled.add(method)
            axes.plot(steps, values, color=colours[method], alpha=0.28, linewidth=0.8)
            axes.plot(steps, smooth, color=colours[method], linewidth=1.8, label=label)
            if np.isfinite(values).any():
                lows.append(np.nanpercentile(values, 1))
                highs.append(max(np.nanpercentile(values, 99), np.nanmax(smooth)))
    if lows and max(highs) > min(lows):  # a single spike must not flatten everything else
        margin = 0.05 * (max(highs) - min(lows))
        axes.set_ylim(min(lows) - margin, max(highs) + margin)
    axes.margins(x=0.01)
    axes.grid(color=TEXT_COLOUR, alpha=0.15, linewidth=0.8)


def moving_average(values: np.ndarray, radius: int) -> np.ndarray:
    """The mean over up to `radius` neighbours a side, fewer at the ends, without NaN; shape (n,)."""
    known = np.isfinite(values)
    window = np.ones(2 * radius + 1)
    # The slice, not mode='same': that answers with the window's length where the curve is the shorter one.
    total = np.convolve(np.where(known, values, 0.0), window)[radius : radius + len(values)]
    count = np.convolve(known.astype(float), window)[radius : radius + len(values)]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=(count > 0.5) & known)


def _legend_above(figure: 'Figure', axes: 'Axes') -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc='outside upper left',
        ncols=min(len(labels), 5),
        handlelength=1.2,
        columnspacing=1.4,
        fontsize=10,
    )


def _svg(draw, size: tuple[float, float], prefix: str, description: str) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout='constrained')
        FigureCanvasSVG(figure)
        figure.get_layout_engine().set(h_pad=0.1)
        draw(figure)
        figure.savefig(
            buffer,
            format='svg',
            transparent=True,
            metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')),
        )
    return _for_pages(buffer.getvalue(), prefix, description)


def _for_pages(svg: str, prefix: str, description: str) -> str:
    """The bare <svg> element, with identifiers of its own, the page's text colour, and a text alternative."""
    import html

    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'url\(#([^)]+)\)', rf'url(#{prefix}-\1)', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = svg.replace(TEXT_COLOUR, 'currentColor')
    # The attribute yields to a page's style sheet; alone, the figure is grey, legible on light and dark.
    label = html.escape(' '.join(description.split()))
    return svg.replace('<svg ', f'<svg role="img" aria-label="{label}" color="#808890" ', 1)
