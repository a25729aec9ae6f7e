"""Scaling curves: a table's values over the sizes of a network."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spark_bench.report.backbones import MARKERS, PARAMETERS, family_of, order_archs
from spark_bench.report.figures import Drawing, cell_words, dagger_note, dress, legend_above, method_colours, spoken
from spark_bench.tables.build import order_methods
from spark_bench.tables.parts import Row, Table
from spark_bench.tables.text import DAGGER, delta_text, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scaling_curves(table: Table, name: str = 'scaling') -> Drawing | None:
    """Each column over the sizes of every family of backbones, a line a row, with the gains over the baseline.

    A panel a column and family that has two backbones with figures at least. Published figures are hollow and dashed.
    The gain that is written is that of the first method behind the baseline, which in the order of tables is SparK
    where it is there; a gain with an unverified side carries a dagger. None if there is no such family.
    """
    panels = []
    for i in table.percent_columns:
        families: dict[str, list[str]] = {}
        for arch in order_archs(row.arch for row in table.rows if row.cells[i].value is not None):
            families.setdefault(family_of(arch)[0], []).append(arch)
        panels += [(i, archs) for archs in families.values() if len(archs) > 1]
    if not panels:
        return None
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)

    def draw(figure: 'Figure') -> None:
        colours = method_colours(row.method for row in table.rows)
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (i, archs) in zip(grid, panels, strict=False):
            _draw_scaling(axes, table, i, archs, colours)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        _legend_of_rows(figure, grid[0], table, colours)

    drawn = sorted({i for i, _ in panels})
    words = cell_words(table, [arch for _, archs in panels for arch in archs], drawn, value_text)
    caption = (
        f'Sizes with millions of parameters. Written beside the points: the gain over {table.baseline} on the '
        'same backbone. Error bars: sample standard deviation over seeds. Hollow and dashed: published figures.'
    )
    return Drawing(
        name,
        'Scaling',
        caption + dagger_note(row.cells[i] for row in table.rows for i in drawn),
        spoken('Scaling curves', words),
        (8.2, 0.7 + 2.9 * lines),
        draw,
    )


def _draw_scaling(axes: 'Axes', table: Table, i: int, archs: Sequence[str], colours: Mapping[str, str]) -> None:
    lines: dict[tuple[str, str], dict[str, Row]] = {}
    for row in table.rows:
        if row.arch in archs and row.cells[i].value is not None:
            lines.setdefault((row.method, row.origin), {})[row.arch] = row
    methods = order_methods(method for method, _ in lines)
    leading = next((method for method in methods if method not in ('scratch', 'supervised', table.baseline)), None)
    for (method, origin), rows in lines.items():
        places = [archs.index(arch) for arch in archs if arch in rows]
        cells = [rows[arch].cells[i] for arch in archs if arch in rows]
        errors = [cell.std or 0 for cell in cells] if any(cell.std for cell in cells) else None
        axes.errorbar(
            places,
            [cell.value for cell in cells],
            errors,
            color=colours[method],
            capsize=3,
            **_look(method, origin, colours),
        )
        for place, cell in zip(places, cells, strict=True):
            gain = delta_text(cell, table.columns[i]) if method == leading else ''
            axes.annotate(
                gain or ('' if cell.verified else DAGGER),
                (place, cell.value + (cell.std or 0)),
                (2, 6),
                textcoords='offset points',
                ha='right',
                fontsize=9,
            )
    family = family_of(archs[0])[0]
    ticks = [
        arch.removeprefix(family).strip('_') + (f'\n{PARAMETERS[arch]:.0f} M' if arch in PARAMETERS else '')
        for arch in archs
    ]
    axes.set_xticks(range(len(archs)), ticks, fontsize=9)
    axes.margins(x=0.12, y=0.2)
    dress(axes, f'{table.columns[i].label}, {family}', 'y')


def _look(method: str, origin: str, colours: Mapping[str, str]) -> dict[str, Any]:
    published = origin == 'published'
    return {
        'marker': MARKERS[list(colours).index(method) % len(MARKERS)],
        'markersize': 6,
        'linewidth': 1.6,
        'linestyle': '--' if published else '-',
        'markerfacecolor': 'none' if published else colours[method],
    }


def _legend_of_rows(figure: 'Figure', axes: 'Axes', table: Table, colours: Mapping[str, str]) -> None:
    for method in colours:
        for origin in ('measured', 'published'):
            if any((row.method, row.origin) == (method, origin) for row in table.rows):
                label = method if origin == 'measured' else f'{method} ({origin})'
                axes.plot([], [], color=colours[method], label=label, **_look(method, origin, colours))
    legend_above(figure, [axes], 4)
