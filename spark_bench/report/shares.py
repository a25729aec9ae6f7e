"""AP over the share of the labels that a detector learned from."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spark_bench.records.schema import Record
from spark_bench.report.figures import Drawing, dress, legend_above, method_colours, not_drawn, spoken
from spark_bench.tables.build import group_by_cell, mixture, order_methods
from spark_bench.tables.noise import deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 6
Point = tuple[float, float, float | None]  # percent of the labels, mean of AP, its deviation over seeds


def share_curves(records: Sequence[Record], name: str = 'labels') -> Drawing | None:
    """Box AP of detectors over the share of the annotated images that they learned from.

    A panel a backbone, a line a method, dashed for frozen backbones. Shares are those of the records' recipes,
    whatever their tasks are called, of each that with most seeds; all the labels are those of the task ``detection``
    without a variant. Error bars are sample standard deviations over seeds. None where no backbone has two shares.
    """
    lines = _lines(records)
    known = sorted({arch for (arch, _, _), points in lines.items() if len(points) > 1})
    archs = known[:_PANELS]
    if not archs:
        return None
    lines = {key: points for key, points in lines.items() if key[0] in archs}
    colours = method_colours(record.method for record in records)

    def draw(figure: 'Figure') -> None:
        panels = figure.subplots(len(archs), 1, squeeze=False)[:, 0]
        for axes, arch in zip(panels, archs, strict=True):
            for (_, method, frozen), points in ((key, line) for key, line in lines.items() if key[0] == arch):
                _draw_line(
                    axes, points, '--' if frozen else '-', colours[method], f'{method}, frozen' if frozen else method
                )
            shares = sorted({share for key, line in lines.items() if key[0] == arch for share, _, _ in line})
            axes.set_xscale('log')
            axes.set_xticks(shares, [f'{share:g} %' for share in shares])
            axes.minorticks_off()
            axes.set_xlabel('labels')
            axes.set_ylabel('box AP, %')
            dress(axes, arch)
        legend_above(figure, panels)

    words = [
        f'{arch} {method}{", frozen" * frozen} {share:g} % {value:.1f}'
        for (arch, method, frozen), points in lines.items()
        for share, value, _ in points
    ]
    caption = (
        'Box AP over the share of the annotated images that was learned from, on a logarithmic axis. Error '
        'bars: sample standard deviation over seeds. Dashed: frozen backbones.'
    )
    return Drawing(
        name,
        'AP over labels',
        caption + not_drawn(known[_PANELS:]),
        spoken('AP over labels', words),
        (8.2, 0.6 + 2.9 * len(archs)),
        draw,
    )


def _lines(records: Sequence[Record]) -> dict[tuple[str, str, bool], list[Point]]:
    """From (backbone, method, frozen) to its points by share."""
    mixed = {cell for cell, group in group_by_cell(records).items() if mixture(group)}  # which the tables name
    known = [
        (record, share, _is_frozen(record))
        for record in records
        if record.cell not in mixed and (share := _share(record)) is not None
    ]
    # Of several tasks of a share, a backbone's with most seeds, or none: a suite tries learning rates with it, too.
    tasks: dict[tuple[str, float, bool], Counter[str]] = {}
    for record, share, frozen in known:
        tasks.setdefault((record.arch, share, frozen), Counter())[record.task] += 1
    drawn = {group: _only_most(counted) for group, counted in tasks.items()}

    found: dict[tuple[str, str, bool], dict[float, list[float]]] = {}
    rank = {method: place for place, method in enumerate(order_methods(record.method for record in records))}
    for record, share, frozen in sorted(known, key=lambda each: (each[0].arch, rank[each[0].method])):
        if record.task == drawn[record.arch, share, frozen]:
            values = found.setdefault((record.arch, record.method, frozen), {})
            values.setdefault(share, []).append(record.metrics['box_ap'])
    return {
        key: [
            (share, sum(each) / len(each), deviation(each) if len(each) > 1 else None)
            for share, each in sorted(values.items())
        ]
        for key, values in found.items()
    }


def _share(record: Record) -> float | None:
    """Percent of the labels that a detector learned from; None for what is not drawn."""
    if record.kind != 'detection' or record.origin != 'measured' or record.metrics.get('box_ap') is None:
        return None
    dataset = ((record.recipe or {}).get('train_dataloader') or {}).get('dataset') or {}
    if dataset.get('fraction') is not None:
        return 100.0 * dataset['fraction']
    return 100.0 if record.recipe and record.task == 'detection' else None


def _is_frozen(record: Record) -> bool:
    return bool((((record.recipe or {}).get('model') or {}).get('backbone') or {}).get('frozen'))


def _only_most(counted: Counter[str]) -> str | None:
    """What was counted most often; None where several were."""
    first, *others = counted.most_common(2)
    return None if others and others[0][1] == first[1] else first[0]


def _draw_line(axes: 'Axes', points: Sequence[Point], style: str, colour: str, label: str) -> None:
    shares, values, spread = zip(*points, strict=True)
    errors = [each or 0.0 for each in spread] if any(spread) else None
    axes.errorbar(shares, values, errors, linestyle=style, marker='o', color=colour, capsize=3, label=label)
