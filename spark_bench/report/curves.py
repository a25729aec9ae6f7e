"""Curves over a run: losses over steps, accuracies over epochs, and the small ones that stand beside a record."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spark_bench.records.schema import Record
from spark_bench.report.figures import Drawing, dress, legend_above, method_colours, not_drawn, spoken
from spark_bench.tables.build import order_methods

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 12  # in a figure: further backbones are named, not drawn
POINTS = 16000  # in a figure, shared by its lines, so that a page of hundreds of runs stays small
FAINT_LINES = 24  # with more lines than this in a panel, the values as logged would only be a cloud
SPARK_WIDTH, SPARK_HEIGHT = 180, 36

Curve = Sequence[Sequence[float | None]]  # [[step, value], ...]
DrawPanel = Callable[['Axes', Sequence[Record], int], None]  # of the records of one backbone, so many points a line


def loss_curves(records: Sequence[Record], task: str) -> Drawing | None:
    """The curve 'loss' of the measured records of ``task``: a panel a backbone, a colour a method.

    Faint lines are the logged values, strong ones their moving average over a tenth of the run; each seed has its
    own line. None if no record has such a curve.
    """
    chosen = _with_curves(records, task, ('loss',))
    if not chosen:
        return None
    colours = method_colours(r.method for r in records)

    def draw_panel(axes: 'Axes', members: Sequence[Record], points: int) -> None:
        _draw_losses(axes, members, colours, points)
        axes.set_ylabel('loss')

    ends = [f'{r.arch} {r.method} from {r.curves["loss"][0][1]} to {r.curves["loss"][-1][1]}' for r in chosen]
    caption = 'Loss at each step, faint as logged, strong as a moving average; each seed has its own line.'
    return _panels(
        f'loss-{task}',
        f'{_named(task)} loss',
        caption,
        spoken(f'Loss curves, {task}', ends),
        'step',
        chosen,
        draw_panel,
    )


def accuracy_curves(records: Sequence[Record], task: str) -> Drawing | None:
    """Top-1 accuracy of the measured records of ``task`` over the epochs; None if no record has such a curve.

    Curves are those named 'top1', 'top1_raw' (the weights as trained, dashed), 'top1_ema' (their moving average, solid)
    and 'top1_knn' (a pretraining's, by nearest neighbours); without moving averages, all are solid. A panel a backbone,
    a colour a method; each seed has its own lines.
    """
    names = ('top1', 'top1_ema', 'top1_raw', 'top1_knn')
    chosen = _with_curves(records, task, names)
    if not chosen:
        return None
    kinds = {name for r in chosen for name in names if len(r.curves.get(name, ())) > 1}
    dashed = kinds - {'top1_ema'} if 'top1_ema' in kinds else set()
    by_neighbours = ' of nearest neighbours' if kinds == {'top1_knn'} else ''

    caption = f'Top-1 accuracy{by_neighbours} on the validation images over the epochs; each seed has its own line.'
    caption += ' Solid: moving average of the weights; dashed: the weights as trained.' if dashed else ''
    return _measured(
        records, chosen, names, dashed, 'top-1, %', 'epoch', f'accuracy-{task}', f'{_named(task)} accuracy', caption
    )


def precision_curves(records: Sequence[Record], task: str) -> Drawing | None:
    """AP of the measured records of ``task`` over the updates, where it was measured during training; None without.

    Curves are those named 'box_ap' (solid) and 'mask_ap' (dashed). A panel a backbone, a colour a method; each seed has
    its own lines.
    """
    names = ('box_ap', 'mask_ap')
    chosen = _with_curves(records, task, names)
    if not chosen:
        return None
    caption = 'AP on the validation images over the updates of the training; each seed has its own line.'
    dashed = {'mask_ap'} if any('mask_ap' in record.curves for record in chosen) else set()
    caption += ' Solid: boxes; dashed: masks.' if dashed else ''
    return _measured(
        records,
        chosen,
        names,
        dashed,
        'AP, %',
        'update',
        f'precision-{task}',
        f'{_named(task)}, AP during training',
        caption,
    )


def _measured(
    records: Sequence[Record],
    chosen: Sequence[Record],
    names: Sequence[str],
    dashed: Collection[str],
    y_label: str,
    x_label: str,
    name: str,
    title: str,
    caption: str,
) -> Drawing:
    """Curves of percentages: a panel a backbone, a line a record and name, dashed where that is asked for."""
    colours = method_colours(r.method for r in records)

    def draw_panel(axes: 'Axes', members: Sequence[Record], points: int) -> None:
        for record in members:
            first = next(name for name in names if name in record.curves)
            for name in (name for name in names if len(record.curves.get(name, ())) > 1):
                steps, values = thin(_arrays(record.curves[name]), points)
                axes.plot(
                    steps,
                    values,
                    '--' if name in dashed else '-',
                    color=colours[record.method],
                    linewidth=1.5,
                    marker='.' if len(values) <= 30 else None,
                    label=record.method if name == first else None,
                )
        axes.set_ylabel(y_label)

    ends = [f'{r.arch} {r.method} {n} ends at {r.curves[n][-1][1]}' for r in chosen for n in names if r.curves.get(n)]
    return _panels(name, title, caption, spoken(title, ends), x_label, chosen, draw_panel)


def _with_curves(records: Sequence[Record], task: str, names: Sequence[str]) -> list[Record]:
    rank = {method: i for i, method in enumerate(order_methods(r.method for r in records))}
    chosen = [
        r
        for r in records
        if r.task == task and r.origin == 'measured' and any(len(r.curves.get(name, ())) > 1 for name in names)
    ]
    return sorted(chosen, key=lambda r: (r.arch, rank[r.method], r.seed))


def _panels(
    name: str,
    title: str,
    caption: str,
    description: str,
    x_label: str,
    records: Sequence[Record],
    draw_panel: DrawPanel,
) -> Drawing:
    """A panel a backbone, in two columns where there are more than three."""
    known = sorted({r.arch for r in records})
    archs = known[:PANELS]
    columns = 2 if len(archs) > 3 else 1
    rows = -(-len(archs) // columns)
    points = int(np.clip(POINTS / (2 * len(records)), 24, 400))

    def draw(figure: 'Figure') -> None:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, arch in zip(panels, archs, strict=False):
            draw_panel(axes, [r for r in records if r.arch == arch], points)
            dress(axes, arch)
            axes.set_xlabel(x_label)
            axes.margins(x=0.01)
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in panels[len(archs) :]:
            axes.set_axis_off()
        legend_above(figure, panels[: len(archs)], order=order_methods)  # a method may be missing in the first panel

    size = (8.2, 0.6 + (2.9 if columns == 1 else 2.4) * rows)
    return Drawing(name, title, caption + not_drawn(known[PANELS:]), description, size, draw)


def _draw_losses(axes: 'Axes', records: Sequence[Record], colours: Mapping[str, str], points: int) -> None:
    lows, highs = [], []
    for record in records:
        steps, values = _arrays(record.curves['loss'])
        smooth = moving_average(values, max(1, len(values) // 20))
        colour = colours[record.method]
        if len(records) <= FAINT_LINES:
            axes.plot(*thin((steps, values), points), color=colour, alpha=0.28, linewidth=0.8)
        shown = np.unique(np.linspace(0, len(steps) - 1, points).round().astype(int))
        axes.plot(steps[shown], smooth[shown], color=colour, linewidth=1.8, label=record.method)
        if np.isfinite(values).any():
            lows.append(np.nanpercentile(values, 1))
            highs.append(max(np.nanpercentile(values, 99), np.nanmax(smooth)))
    if lows and max(highs) > min(lows):  # a single spike must not flatten everything else
        margin = 0.05 * (max(highs) - min(lows))
        axes.set_ylim(min(lows) - margin, max(highs) + margin)


def moving_average(values: np.ndarray, radius: int) -> np.ndarray:
    """The mean over up to ``radius`` neighbours a side, fewer at the ends, without NaN; shape (n,)."""
    known = np.isfinite(values)
    window = np.ones(2 * radius + 1)
    # The slice, not mode='same': that answers with the window's length where the curve is the shorter one.
    total = np.convolve(np.where(known, values, 0.0), window)[radius : radius + len(values)]
    count = np.convolve(known.astype(float), window)[radius : radius + len(values)]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=(count > 0.5) & known)


def thin(curve: tuple[np.ndarray, np.ndarray], points: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about ``points`` of the (n,) steps and values of a curve, with every stretch's least and greatest.

    So a spike stays to be seen, however long the curve. First and last point are kept; gaps (NaN) may close.
    """
    steps, values = curve
    if len(steps) <= points:
        return steps, values
    kept = {0, len(steps) - 1}
    for part in np.array_split(np.arange(len(steps)), max(1, points // 2)):
        known = part[np.isfinite(values[part])]
        kept |= {part[0]} if not len(known) else {known[values[known].argmin()], known[values[known].argmax()]}
    chosen = np.array(sorted(kept))
    return steps[chosen], values[chosen]


@dataclass(frozen=True)
class Sparkline:
    """A small curve for one record, in a field of SPARK_WIDTH × SPARK_HEIGHT."""

    name: str
    points: str  # of an SVG polyline, about half a kilobyte
    words: str  # what it shows, for those who cannot see it
    ends: str  # first and last value with their steps
    size: tuple[int, int] = (SPARK_WIDTH, SPARK_HEIGHT)


def sparkline(name: str, curve: Curve) -> Sparkline | None:
    """The small form of a curve; None for fewer than two values."""
    steps, values = thin(_arrays(curve), 60)
    known = np.isfinite(values)
    if known.sum() < 2:
        return None
    steps, values = steps[known], values[known]
    low, high = values.min(), values.max()
    x = (steps - steps[0]) / ((steps[-1] - steps[0]) or 1) * (SPARK_WIDTH - 4) + 2
    y = SPARK_HEIGHT - 3 - (values - low) / ((high - low) or 1) * (SPARK_HEIGHT - 6)
    points = ' '.join(f'{a:.0f},{b:.1f}' for a, b in zip(x, y, strict=True))
    words = f'{name}, from {values[0]:.4g} to {values[-1]:.4g}, between {low:.4g} and {high:.4g}'
    (first, start), *_, (last, end) = (point for point in curve if point[1] is not None)
    return Sparkline(name, points, words, f'{start:.4g} at {first:g}, {end:.4g} at {last:g}')


def _arrays(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    steps, values = np.array(curve, dtype=float).reshape(-1, 2).T
    return steps, values


def _named(task: str) -> str:
    kind, _, variant = task.partition('_')
    kind = {'pretrain': 'pretraining', 'knn': 'k-NN', 'linear': 'linear probe'}.get(kind, kind)
    return f'{kind[0].upper()}{kind[1:]}' + (f' ({variant})' if variant else '')
