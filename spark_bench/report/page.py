"""The report: one HTML file that needs nothing else, made from records and the files that runs left."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pretrain.ablations import ABLATIONS
from spark_bench.errors import InputError
from spark_bench.files import claim_output, write_output
from spark_bench.models.methods import METHODS
from spark_bench.records.schema import Record
from spark_bench.report.detections import detection_galleries
from spark_bench.report.drawings import draw_charts, draw_curves, tasks_of
from spark_bench.report.entries import cell_id, cell_target, distinct_software, duration, group_entries, record_id
from spark_bench.report.figures import inline_svg, method_colours, save_drawing
from spark_bench.report.galleries import Gallery
from spark_bench.report.reconstructions import reconstruction_galleries
from spark_bench.tables.build import Failure, group_by_cell, order_methods
from spark_bench.tables.html import templates, to_html
from spark_bench.tables.parts import Table, TableSpec
from spark_bench.tables.suite import load_suite, tables_of

# One line a method for the legend below the table; a method without one is only named.
METHOD_NOTES = {'scratch': ABLATIONS['scratch'].summary, **{name: method.summary for name, method in METHODS.items()}}
OWN = rb'(?s)<!DOCTYPE html>.{0,2000}<title>SparK benchmark: '  # how a report begins
PRINTED_RECORDS = 40  # with more, print shows their first lines alone: a hundred pages help no one


def claim_report(output: str | Path) -> Path:
    """The path of the report.

    Raises:
        InputError: where none should be written there, see ``claim_output``.
    """
    if not str(output).endswith('/') and Path(output).suffix.lower() not in ('.html', '.htm'):
        raise InputError(f'--output {output}: a report is HTML: end the name in .html')
    return claim_output(output, OWN)


def write_report(
    results: str | Path,
    suite: str,
    output: str | Path,
    work_root: str | Path,
    specs: Sequence[TableSpec] = (),
    failed: Sequence[Failure] = (),
    beside: Sequence[Table] = (),
) -> Path:
    """Write the report on ``suite`` to ``output`` and return that path; an older file is replaced in one step.

    The page loads nothing from outside. Its one script sorts, filters and opens records; without it the page reads the
    same. Images, points of curves and the panels of a figure are limited, so that the file stays within a few megabytes
    for hundreds of records.

    Args:
        results: root of the records.
        work_root: artifacts and data sets are looked for below it and at their paths as recorded; one that is gone
            becomes a sentence in the report.
        specs: the tables of the suite; one of all its records if there are none.
        failed: runs that failed, as ``build_table`` takes them.
        beside: tables of other runs, shown after these.

    Raises:
        InputError: if the suite has no record, if a record is unsound, or if ``output`` cannot be written.
    """
    claim_report(output)
    records = load_suite(results, suite)
    return write_output(output, _render(suite, records, tables_of(records, specs, failed), work_root, beside))


def _render(suite, records, tables, work_root, beside):
    cells = group_by_cell(records)

    def table_html(table: Table) -> str:
        return to_html(table, link=lambda row, column: cell_target(row, column, cells))

    def galleries(make: Callable[..., list[Gallery]], kind: str) -> list[Gallery]:
        return [gallery for task in tasks_of(records, kind) for gallery in make(records, work_root, task=task)]

    software = distinct_software(records)
    environment = templates('spark_bench.report')
    script = environment.loader.get_source(environment, 'script.js')[0]
    return environment.get_template('page.html').render(
        suite=suite,
        summary=_summary(records),
        seeds=len({record.seed for record in records}),
        tables=tables,
        beside=[to_html(table, prefix='measured') for table in beside],
        table_html=table_html,
        colours=method_colours(record.method for record in records),
        methods=order_methods(record.method for record in records),
        method_notes=METHOD_NOTES,
        charts=draw_charts(tables, records),
        curves=draw_curves(records),
        inline_svg=inline_svg,
        reconstructions=galleries(reconstruction_galleries, 'pretrain'),
        detections=galleries(detection_galleries, 'detection'),
        groups=group_entries(records, list(software)),
        software=software.values(),
        record_id=record_id,
        cell_id=cell_id,
        few=len(records) <= PRINTED_RECORDS,
        script=script,
        policy=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def write_figures(results: str | Path, suite: str, specs: Sequence[TableSpec] = ()) -> list[Path]:
    """Write the report's figures as SVG and PNG to ``<results>/figures/<suite>``; return the paths.

    Raises:
        InputError: if the suite has no record, if a record is unsound, or if the folder cannot be written.
    """
    records = load_suite(results, suite)
    drawings = [*draw_charts(tables_of(records, specs), records), *draw_curves(records)]
    return [path for drawing in drawings for path in save_drawing(drawing, Path(results, 'figures', suite))]


def _summary(records: Sequence[Record]) -> list[str]:
    """How many records there are, of how much computing, on which machines and days."""
    measured = [r for r in records if r.origin == 'measured']
    published = len(records) - len(measured)
    parts = [f'{len(records)} {"record" if len(records) == 1 else "records"}']
    if published:
        parts[0] += f', {published} of them published' if measured else ', all published'
    if measured:
        parts.append(f'{duration(sum(r.wall_time_s or 0 for r in measured))} of computing')
    machines = sorted(
        {
            f'{r.environment["gpu"] or r.environment["cpu"]}, {r.environment["cores"]} cores'
            for r in measured
            if r.environment
        }
    )
    parts += machines[:3] + ([f'{len(machines) - 3} further machines'] if len(machines) > 3 else [])
    days = sorted({r.started_at[:10] for r in measured if r.started_at})
    if days:
        parts.append(days[0] if len(days) == 1 else f'{days[0]} to {days[-1]}')
    return parts
