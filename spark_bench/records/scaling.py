"""What a figure buys: scaling curves over the sizes of a network, and accuracy against computing time."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spark_bench.records.charts import cell_words, dagger_note, percent_columns
from spark_bench.records.figures import TEXT_COLOUR, Drawing, labelled, legend_above, method_colours, spoken
from spark_bench.records.schema import Record
from spark_bench.records.table import Row, Table, delta_text, group_by_cell, order_methods, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ['PARAMETERS', 'cost_chart', 'family_of', 'order_archs', 'scaling_curves']

# Millions of parameters with a classifier of 1,000 classes, as timm counts them.
PARAMETERS = {
    'resnet50': 25.6,
    'resnet101': 44.5,
    'resnet152': 60.2,
    'resnet200': 64.7,
    'convnext_tiny': 28.6,
    'convnext_small': 50.2,
    'convnext_base': 88.6,
    'convnext_large': 197.8,
    'convnextv2_tiny': 28.6,
    'convnextv2_base': 88.7,
}
SIZES = ('atto', 'femto', 'pico', 'nano', 'tiny', 'small', 'base', 'large', 'xlarge', 'huge')
MARKERS = 'osD^vPX*<>ph'
SECONDS_AN_HOUR = 3600


def family_of(arch: str) -> tuple[str, tuple[int, str]]:
    """The family of a backbone and a key that orders its sizes: ('resnet', (50, '')), ('swin', (6, 'base'))."""
    match = re.fullmatch(r'([a-z]+?)_?(\d+)(.*)', arch)
    if match and not arch.startswith('convnextv'):
        return match[1], (int(match[2]), match[3])
    family, _, rest = arch.partition('_')
    size = next((SIZES.index(part) for part in rest.split('_') if part in SIZES), len(SIZES))
    return family, (size, rest)


def order_archs(archs: Sequence[str]) -> list[str]:
    """`archs`, each once, family by family, small to large."""
    return sorted(set(archs), key=family_of)


def scaling_curves(table: Table, name: str = 'scaling') -> Drawing | None:
    """Each column over the sizes of every family of backbones, a line a row, with the gains over the baseline.

    A panel a column and family that has two backbones with figures at least. Published figures are hollow and
    dashed. The gain that is written is that of the first method behind the baseline, which in the order of tables
    is SparK where it is there; a gain with an unverified side carries a dagger. None if there is no such family.
    """
    panels = []
    for i in percent_columns(table):
        families: dict[str, list[str]] = {}
        for arch in order_archs([row.arch for row in table.rows if row.cells[i].value is not None]):
            families.setdefault(family_of(arch)[0], []).append(arch)
        panels += [(i, archs) for archs in families.values() if len(archs) > 1]
    if not panels:
        return None
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)

    def draw(figure: 'Figure') -> None:
        colours = method_colours([row.method for row in table.rows])
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (i, archs) in zip(grid, panels, strict=False):
            _draw_scaling(axes, table, i, archs, colours)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        _legend_of_rows(figure, grid[0], table, colours)

    drawn = {i for i, _ in panels}
    words = cell_words(table, [arch for _, archs in panels for arch in archs], sorted(drawn), value_text)
    caption = (
        'Sizes with millions of parameters. '
        f'Written beside the points: the gain over {table.baseline} on the same backbone. Error bars: sample standard '
        'deviation over seeds. Hollow and dashed: published figures.'
    )
    cells = [row.cells[i] for row in table.rows for i in drawn]
    return Drawing(
        name,
        'Scaling',
        caption + dagger_note(cells),
        spoken('Scaling curves', words),
        (8.2, 0.7 + 2.9 * lines),
        draw,
    )


def _draw_scaling(axes: 'Axes', table: Table, i: int, archs: Sequence[str], colours: dict[str, str]) -> None:
    lines: dict[tuple[str, str], dict[str, Row]] = {}
    for row in table.rows:
        if row.arch in archs and row.cells[i].value is not None:
            lines.setdefault((row.method, row.origin), {})[row.arch] = row
    methods = order_methods(method for method, _ in lines)
    leading = next((method for method in methods if method not in ('scratch', 'supervised', table.baseline)), None)
    for (method, origin), rows in lines.items():
        places = [archs.index(arch) for arch in archs if arch in rows]
        cells = [rows[arch].cells[i] for arch in archs if arch in rows]
        axes.errorbar(
            places,
            [cell.value for cell in cells],
            [cell.std or 0 for cell in cells] if any(cell.std for cell in cells) else None,
            color=colours[method],
            capsize=3,
            **_look(method, origin, colours),
        )
        for place, cell in zip(places, cells, strict=True):
            dagger = '' if cell.verified else '†'
            gain = delta_text(cell, table.columns[i]) if method == leading else ''
            axes.annotate(
                gain or dagger,
                (place, cell.value + (cell.std or 0)),
                (2, 6),
                textcoords='offset points',
                ha='right',
                fontsize=9,
            )
    family = family_of(archs[0])[0]
    sizes = [arch.removeprefix(family).strip('_') for arch in archs]
    weights = [f'\n{PARAMETERS[arch]:.0f} M' if arch in PARAMETERS else '' for arch in archs]
    ticks = [size + weight for size, weight in zip(sizes, weights, strict=True)]
    axes.set_xticks(range(len(archs)), ticks, fontsize=9)
    axes.set_title(f'{table.columns[i].label}, {family}', loc='left', fontsize=11, fontweight='bold')
    axes.margins(x=0.12, y=0.2)
    axes.grid(axis='y', color=TEXT_COLOUR, alpha=0.15, linewidth=0.8)


def _look(method: str, origin: str, colours: dict[str, str]) -> dict:
    marker = MARKERS[list(colours).index(method) % len(MARKERS)]
    published = origin == 'published'
    return {
        'marker': marker,
        'markersize': 6,
        'linewidth': 1.6,
        'linestyle': '--' if published else '-',
        'markerfacecolor': 'none' if published else colours[method],
    }


def _legend_of_rows(figure: 'Figure', axes: 'Axes', table: Table, colours: dict[str, str]) -> None:
    for method in colours:
        for origin in ('measured', 'published'):
            if any((row.method, row.origin) == (method, origin) for row in table.rows):
                label = method if origin == 'measured' else f'{method} ({origin})'
                axes.plot([], [], color=colours[method], label=label, **_look(method, origin, colours))
    legend_above(figure, labelled(axes), 4)


def cost_chart(table: Table, records: Sequence[Record], name: str = 'cost') -> Drawing | None:
    """Accuracy and AP against what they cost: a point a measured row, a panel a column.

    The cost is the time of the run and of the pretraining that it started from, where its record is there,
    averaged over seeds: in GPU-hours if every run states how many GPUs it had (`setting`, key 'gpus'), else in
    hours by the clock. A row whose pretraining has no record shows a hollow point: its cost is the transfer's
    alone. None if fewer than two rows can be drawn.
    """
    points = {i: _costs(table, i, records) for i in percent_columns(table)}
    points = {i: found for i, found in points.items() if len(found) > 1}
    if not points:
        return None
    gpu_hours = all(known for found in points.values() for *_, known in found)
    short = max(clock for found in points.values() for _, clock, *_ in found) < SECONDS_AN_HOUR and not gpu_hours
    unit = 'GPU-hours' if gpu_hours else f'{"minutes" if short else "hours"} by the clock'
    divisor = 60 if short else SECONDS_AN_HOUR
    costs = {i: [(row, (gpu if gpu_hours else clock) / divisor, whole) for row, clock, gpu, whole, _ in found]
             for i, found in points.items()}
    columns = min(len(points), 3)
    lines = -(-len(points) // columns)

    def draw(figure: 'Figure') -> None:
        colours = method_colours([row.method for row in table.rows])
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (i, found) in zip(grid, costs.items(), strict=False):
            _draw_costs(axes, found, table, i, colours)
            axes.set_xlabel(unit)
        for axes in grid[len(points) :]:
            axes.set_axis_off()
        _legend_of_costs(figure, grid[0], [row for found in costs.values() for row, *_ in found], colours, table)

    hidden = any(not whole for found in costs.values() for *_, whole in found)
    caption = (
        f'Against the {unit} of the run and of the pretraining that it started from, mean over seeds; vertical error '
        'bars: sample standard deviation over seeds.'
        + ('' if gpu_hours else ' How many GPUs worked is not known for every run, so time is not multiplied.')
        + (' Hollow: without its pretraining, of which there is no record.' if hidden else '')
    )
    words = [
        f'{row.arch} {row.label} {table.columns[i].label} {row.cells[i].value:.1f} after {cost:.3g} {unit}'
        for i, found in costs.items()
        for row, cost, _ in found
    ]
    return Drawing(
        name,
        f'Accuracy against {unit}',
        caption,
        spoken(f'Accuracy against {unit}', words),
        (8.2, 0.9 + 2.9 * lines),
        draw,
    )


def _costs(table: Table, i: int, records: Sequence[Record]) -> list[tuple[Row, float, float, bool, bool]]:
    """(row, seconds by the clock, GPU-seconds, pretraining included, GPUs known) of the measured rows."""
    found = []
    cells = group_by_cell(records)
    pretrainings = [r for r in records if r.kind == 'pretrain']
    for row in table.rows:
        runs = cells.get(('measured', table.columns[i].task, row.arch, row.method), [])
        if row.origin != 'measured' or row.cells[i].value is None or any(r.wall_time_s is None for r in runs):
            continue
        chains = [[r, *filter(None, [pretraining_of(r, pretrainings)])] for r in runs]
        clock = [sum(r.wall_time_s or 0 for r in chain) for chain in chains]
        gpus = [[gpus_of(r) for r in chain] for chain in chains]
        known = all(n is not None for numbers in gpus for n in numbers)
        gpu = [
            sum((r.wall_time_s or 0) * (n or 0) for r, n in zip(chain, numbers, strict=True))
            for chain, numbers in zip(chains, gpus, strict=True)
        ]
        whole = all(len(chain) > 1 or not r.weights for chain, r in zip(chains, runs, strict=True))
        found.append((row, sum(clock) / len(runs), sum(gpu) / len(runs), whole, known))
    return found


def pretraining_of(record: Record, records: Sequence[Record]) -> Record | None:
    """The pretraining whose weights `record` started from; None where it has none or its record is not there."""
    config_hash = (record.weights or {}).get('config_hash')
    if not config_hash:
        return None
    found = [
        r
        for r in records
        if r.task.partition('_')[0] == 'pretrain'
        and (r.arch, r.method, r.config_hash) == (record.arch, record.method, config_hash)
    ]
    # One pretraining may serve all seeds of what follows.
    return next((r for r in found if r.seed == record.seed), found[0] if found else None)


def gpus_of(record: Record) -> float | None:
    """How many GPUs the run had, if its record says so."""
    number = (getattr(record, 'setting', None) or {}).get('gpus')
    return number if isinstance(number, (int, float)) and number > 0 else None


def _draw_costs(axes: 'Axes', found: list, table: Table, i: int, colours: dict[str, str]) -> None:
    archs = order_archs([row.arch for row in table.rows])
    for row, cost, whole in found:
        axes.errorbar(
            cost,
            row.cells[i].value,
            row.cells[i].std,
            color=colours[row.method],
            capsize=3,
            marker=MARKERS[archs.index(row.arch) % len(MARKERS)],
            markersize=7,
            markerfacecolor=colours[row.method] if whole else 'none',
        )
    costs = [cost for _, cost, _ in found]
    if min(costs) > 0 and max(costs) / min(costs) > 20:
        axes.set_xscale('log')
    axes.set_title(table.columns[i].label, loc='left', fontsize=11, fontweight='bold')
    axes.margins(0.1)
    axes.grid(color=TEXT_COLOUR, alpha=0.15, linewidth=0.8)


def _legend_of_costs(
    figure: 'Figure', axes: 'Axes', rows: Sequence[Row], colours: dict[str, str], table: Table
) -> None:
    for method in (m for m in colours if any(row.method == m for row in rows)):
        axes.plot([], [], 'o', color=colours[method], label=method)
    all_archs = order_archs([row.arch for row in table.rows])
    archs = [arch for arch in all_archs if any(row.arch == arch for row in rows)]
    for arch in archs if len(archs) > 1 else ():
        marker = MARKERS[all_archs.index(arch) % len(MARKERS)]
        axes.plot([], [], marker, color=TEXT_COLOUR, markerfacecolor='none', label=arch)
    legend_above(figure, labelled(axes), 4)
