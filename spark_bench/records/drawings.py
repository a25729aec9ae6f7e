"""All figures of a suite: what the report shows and what is written beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spark_bench.records.charts import bar_chart, gain_bars, value_dots
from spark_bench.records.curves import accuracy_curves, loss_curves
from spark_bench.records.figures import Drawing, save_drawing
from spark_bench.records.scaling import cost_chart, scaling_curves
from spark_bench.records.schema import TASKS, Record
from spark_bench.records.table import Table

__all__ = ['Drawings', 'drawings_of_suite', 'save_drawings', 'tasks_of']


@dataclass(frozen=True)
class Drawings:
    """The figures of one suite in the order in which they are shown."""

    charts: tuple[Drawing, ...]  # drawn from the rows of tables
    curves: tuple[Drawing, ...]  # drawn from the curves of records


def drawings_of_suite(tables: Sequence[Table], records: Sequence[Record]) -> Drawings:
    """The figures of `tables` and `records`; those that have nothing to show are left out.

    A table that is drawn neither as curves nor as gains is drawn as its values: bars for one backbone, points for
    several, nothing for a single row.
    """
    charts = []
    for table in tables:
        suffix = f'-{table.name}' if table.name else ''
        scaling = scaling_curves(table, f'scaling{suffix}')
        gains = gain_bars(table, f'gains{suffix}')
        values = None
        if not scaling and not gains and len(table.rows) > 1:
            draw_values = bar_chart if len(table.archs) == 1 else value_dots
            values = draw_values(table, f'values{suffix}')
        charts += [scaling, gains, values, cost_chart(table, records, f'cost{suffix}')]
    curves = [draw(records, task) for task in tasks_of(records) for draw in (loss_curves, accuracy_curves)]
    return Drawings(tuple(filter(None, charts)), tuple(filter(None, curves)))


def tasks_of(records: Sequence[Record], kind: str | None = None) -> list[str]:
    """The tasks of `records`, each once, in the order of TASKS and then of their variants; of one kind or of all."""
    tasks = sorted({r.task for r in records}, key=lambda task: (TASKS.index(task.partition('_')[0]), task))
    return [task for task in tasks if kind in (None, task.partition('_')[0])]


def save_drawings(drawings: Drawings, folder: str | Path) -> list[Path]:
    """Write every figure as SVG and PNG to `folder`; return the paths. Raises InputError if that fails."""
    return [path for drawing in (*drawings.charts, *drawings.curves) for path in save_drawing(drawing, folder)]
