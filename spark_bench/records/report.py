"""The report: one HTML file that needs nothing else, made from records and the files that runs left."""

import base64
import hashlib
import importlib.resources
import itertools
import string
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from spark_bench.errors import InputError
from spark_bench.files import claim_output
from spark_bench.records.drawings import drawings_of_suite, save_drawings, tasks_of
from spark_bench.records.figures import Drawing, inline_svg, method_colours
from spark_bench.records.pictures import Gallery, Picture, detection_galleries, reconstruction_galleries
from spark_bench.records.report_records import cell_target, duration, records_part
from spark_bench.records.schema import Record
from spark_bench.records.store import write_text_output
from spark_bench.records.table import (
    Table,
    TableSpec,
    build_table,
    group_by_cell,
    load_suite,
    order_methods,
    table_of_suite,
    to_html,
)

__all__ = ['METHOD_NOTES', 'claim_report', 'write_figures', 'write_report']

# One line a method for the legend below the table; a method without one is only named.
METHOD_NOTES = {
    'scratch': 'no pretraining',
    'supervised': 'trained with labels in the ordinary way, as its source describes',
    'spark': 'masked pretraining with sparse convolution and a hierarchical decoder',
    'no_sparse': 'an ordinary dense encoder on the picture with its masked pixels set to zero',
    'no_hierarchy': 'only the deepest feature map reaches the decoder',
    'black_mosaic': 'the blacked-out picture through a dense encoder, without mask tokens',
    'ape': 'absolute position embedding added to every feature map that reaches the decoder',
    'loss_on_all': 'the loss over visible patches too, not the masked ones alone',
    'half_schedule': 'half the epochs of pretraining',
}
DEMO_NOTE = (
    '<strong>What this shows, and what it does not.</strong> This table was made at a very small scale: '
    'a small network, generated pictures, minutes on a CPU instead of days on many GPUs. '
    'It shows that the whole road works, from pretraining to the table, with every part real. '
    'It does not show the paper’s result: {seeds}, differences of a few points between the rows are noise, '
    'and their order may change from one seed to the next.'
)
OWN = rb'(?s)<!DOCTYPE html>.{0,2000}<title>SparK benchmark: '  # how a report begins
PRINTED_RECORDS = 40  # with more, print shows their first lines alone: a hundred pages help no one


def claim_report(output: str | Path) -> Path:
    """The path of the report. Raises InputError where none should be written there, see `claim_output`."""
    if not str(output).endswith('/') and Path(output).suffix.lower() not in ('.html', '.htm'):
        raise InputError(f'--output {output}: a report is HTML: end the name in .html')
    return claim_output(output, OWN)


def write_report(
    results: str | Path,
    suite: str,
    output: str | Path,
    work_root: str | Path,
    specs: Sequence[TableSpec] = (),
    failed: Sequence[tuple[str, str, str, int, str]] = (),
) -> Path:
    """Write the report on `suite` to `output` and return that path; an older file is replaced in one step.

    The page loads nothing from outside. Its one script sorts, filters and opens records; without it the page
    reads the same. Artifacts and data sets are looked for below `work_root` and at their paths as recorded; one
    that is gone becomes a sentence in the report. Pictures, points of curves and the panels of a figure are
    limited, so that the file stays within a few megabytes for hundreds of records.

    Args:
        specs: the tables of the suite; one of all its records if there are none.
        failed: runs that failed, as `build_table` takes them.

    Raises:
        InputError: if the suite has no record, if a record is unsound, or if `output` cannot be written.
    """
    claim_report(output)
    records = load_suite(results, suite)
    tables = _tables(records, specs, failed)
    drawings = drawings_of_suite(tables, records)
    script = _resource('report_script.js')
    page = string.Template(_resource('report_template.html')).substitute(
        title=escape(f'SparK benchmark: {suite}'),
        policy=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        colours=_colours(records),
        summary=_summary(records),
        note=_scale_note(suite, records),
        tables=_tables_part(tables, records),
        legend=_legend(records),
        charts=_figures(drawings.charts, 'No value to draw yet.'),
        curves=_figures(drawings.curves, 'No curve recorded yet.'),
        reconstructions=_galleries(
            (reconstruction_galleries(records, work_root, task=task) for task in tasks_of(records, 'pretrain')),
            'small',
            'The same pictures under the same masks. Visible patches are pasted back. Of a masked patch the network '
            'paints the structure; mean colour and contrast are the original’s, as the loss normalises them away.',
            'No pretraining in this suite yet.',
        ),
        detections=_galleries(
            (detection_galleries(records, work_root, task=task) for task in tasks_of(records, 'detection')),
            'large',
            'Validation pictures; detections with a score of 0.3 and more.',
            'No detection measured in this suite yet.',
        ),
        size='few' if len(records) <= PRINTED_RECORDS else 'many',
        provenance=records_part(records),
        script=script,
    )
    return write_text_output(output, page)


def write_figures(
    results: str | Path, suite: str, specs: Sequence[TableSpec] = (), folder: str | Path | None = None
) -> list[Path]:
    """Write the report's figures as SVG and PNG to `folder`, `<results>/figures/<suite>` if None; the paths.

    Raises InputError if the suite has no record, if a record is unsound, or if the folder cannot be written.
    """
    records = load_suite(results, suite)
    drawings = drawings_of_suite(_tables(records, specs), records)
    return save_drawings(drawings, folder or Path(results, 'figures', suite))


def _tables(records: Sequence[Record], specs: Sequence[TableSpec], failed: Sequence = ()) -> list[Table]:
    return [build_table(records, spec, failed) for spec in specs] or [table_of_suite(records)]


def _resource(name: str) -> str:
    return importlib.resources.files('spark_bench.records').joinpath(name).read_text(encoding='utf-8')


def _colours(records: Sequence[Record]) -> str:
    """Style rules that give each row of a table the colour of its method in the figures."""
    colours = method_colours([r.method for r in records])
    return '\n'.join(
        f'.results tr[data-method="{escape(method)}"] {{ --method: {colour}; }}'
        for method, colour in colours.items()
    )


def _summary(records: Sequence[Record]) -> str:
    measured = [r for r in records if r.origin == 'measured']
    published = len(records) - len(measured)
    seconds = sum(r.wall_time_s or 0 for r in measured)
    machines = sorted(
        {
            f'{r.environment["gpu"] or r.environment["cpu"]}, {r.environment["cores"]} cores'
            for r in measured
            if r.environment
        }
    )
    days = sorted({r.started_at[:10] for r in measured if r.started_at})
    parts = [f'{len(records)} {"record" if len(records) == 1 else "records"}']
    if published:
        parts[0] += ', all published' if not measured else f', {published} of them published'
    if measured:
        parts.append(f'{duration(seconds)} of computing')
    parts += machines[:3] + ([f'{len(machines) - 3} further machines'] if len(machines) > 3 else [])
    if days:
        parts.append(days[0] if len(days) == 1 else f'{days[0]} to {days[-1]}')
    return ' · '.join(escape(part) for part in parts)


def _scale_note(suite: str, records: Sequence[Record]) -> str:
    if not suite.startswith('demo'):
        return ''
    seeds = len({r.seed for r in records})
    words = 'with one seed' if seeds == 1 else f'even with {seeds} seeds'
    return f'<p class="note">{DEMO_NOTE.format(seeds=words)}</p>'


def _tables_part(tables: Sequence[Table], records: Sequence[Record]) -> str:
    parts = []
    cells = group_by_cell(records)
    for table in tables:
        name = table.title or 'Results'
        if table.title:
            parts.append(f'<h3>{escape(table.title)}</h3>')
        fragment = to_html(table, link=lambda row, column: cell_target(row, column, cells))
        single = ' single' if len(table.archs) == 1 else ''
        parts.append(
            f'<div class="wide{single}" tabindex="0" role="region" aria-label="{escape(name)}">{fragment}</div>'
        )
    return '<p class="absent">A value links to the records that it comes from.</p>' + ''.join(parts)


def _legend(records: Sequence[Record]) -> str:
    methods = [m for m in order_methods(r.method for r in records) if m in METHOD_NOTES]
    return ''.join(f'<dt>{escape(m)}</dt><dd>{escape(METHOD_NOTES[m])}</dd>' for m in methods)


def _figures(drawings: Sequence[Drawing], absent: str) -> str:
    parts = []
    for drawing in drawings:
        parts.append(
            f'<h3>{escape(drawing.title)}</h3><figure>'
            f'<div class="wide" tabindex="0" role="region" aria-label="{escape(drawing.title)}, figure">'
            f'{inline_svg(drawing)}</div><figcaption>{escape(drawing.caption)}</figcaption></figure>'
        )
    return ''.join(parts) or f'<p class="absent">{escape(absent)}</p>'


def _galleries(groups: Iterable[Sequence[Gallery]], size: str, caption: str, absent: str) -> str:
    parts = []
    for gallery in itertools.chain.from_iterable(groups):
        parts.append(f'<h3>{escape(gallery.title)}</h3>')
        if gallery.rows:
            parts.append(_grid(gallery, size, caption))
        parts += [f'<p class="absent">{escape(note)}</p>' for note in gallery.notes]
    return ''.join(parts) or f'<p class="absent">{escape(absent)}</p>'


def _grid(gallery: Gallery, size: str, caption: str) -> str:
    heads = ''.join(f'<th scope="col">{escape(heading)}</th>' for heading in gallery.headings)
    lines = ''.join(f'<tr>{"".join(map(_image, row))}</tr>' for row in gallery.rows)
    label = f'Pictures of {escape(gallery.title)}'
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table class="gallery {size}">'
        f'<caption><span>{escape(caption)}</span></caption><thead><tr>{heads}</tr></thead>'
        f'<tbody>{lines}</tbody></table></div>'
    )


def _image(picture: Picture) -> str:
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<td><img src="{picture.uri}" alt="{escape(picture.alt)}" {size}></td>'
