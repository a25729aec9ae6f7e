"""All figures of a suite: what the report shows and what is written beside it."""

from collections.abc import Sequence

from spark_bench.records.json_schema import TASKS
from spark_bench.records.schema import Record
from spark_bench.report.charts import bar_chart, gain_bars, value_dots
from spark_bench.report.costs import cost_chart
from spark_bench.report.curves import accuracy_curves, loss_curves, precision_curves
from spark_bench.report.figures import Drawing
from spark_bench.report.scaling import scaling_curves
from spark_bench.report.shares import share_curves
from spark_bench.report.transfer import transfer_chart
from spark_bench.tables.parts import Table


def draw_charts(tables: Sequence[Table], records: Sequence[Record]) -> list[Drawing]:
    """The figures that are drawn from the rows of tables; those that have nothing to show are left out.

    A table that is drawn neither as curves nor as gains is drawn as its values: bars for one backbone, points for
    several, nothing for a single row. Behind the tables' figures stands that of AP over the share of the labels.
    """
    charts: list[Drawing | None] = []
    for table in tables:
        suffix = f'-{table.name}' if table.name else ''
        scaling = scaling_curves(table, f'scaling{suffix}')
        gains = gain_bars(table, f'gains{suffix}')
        values = None
        if not scaling and not gains and len(table.rows) > 1:
            draw_values = bar_chart if len(table.archs) == 1 else value_dots
            values = draw_values(table, f'values{suffix}')
        charts += [scaling, gains, values, cost_chart(table, records, f'cost{suffix}')]
        charts.append(transfer_chart(table, records, f'transfer{suffix}'))
    charts.append(share_curves(records))
    return [chart for chart in charts if chart]


def draw_curves(records: Sequence[Record]) -> list[Drawing]:
    """The figures that are drawn from the curves of records: of each task its losses, then its accuracies or AP."""
    drawn = [
        draw(records, task) for task in tasks_of(records) for draw in (loss_curves, accuracy_curves, precision_curves)
    ]
    return [curves for curves in drawn if curves]


def tasks_of(records: Sequence[Record], kind: str | None = None) -> list[str]:
    """The tasks of ``records``, each once, in the order of TASKS and then of their variants; of one kind or of all."""
    tasks = sorted({(TASKS.index(record.kind), record.task) for record in records if kind in (None, record.kind)})
    return [task for _, task in tasks]
