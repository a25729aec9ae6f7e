"""The report: one HTML file that needs nothing else, made from records and the files that runs left."""

import importlib.resources
import string
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from spark_bench.records.figures import bar_chart, loss_curves, method_colours
from spark_bench.records.pictures import Gallery, Picture, detection_galleries, reconstruction_galleries
from spark_bench.records.schema import TASKS, Record
from spark_bench.records.store import write_text_atomically
from spark_bench.records.table import (
    Table,
    delta_text,
    delta_verdict,
    load_suite,
    order_methods,
    table_of_suite,
    value_text,
)

__all__ = ['METHOD_NOTES', 'write_report']

# One line a method for the legend below the table; a method without one is only named.
METHOD_NOTES = {
    'scratch': 'no pretraining; every other row is measured against it',
    'spark': 'masked pretraining with sparse convolution and a hierarchical decoder',
    'no_sparse': 'an ordinary dense encoder on the picture with its masked pixels set to zero',
    'no_hierarchy': 'only the deepest feature map reaches the decoder',
    'black_mosaic': 'the blacked-out picture through a dense encoder, without mask tokens',
}
DEMO_NOTE = (
    '<strong>What this shows, and what it does not.</strong> This table was made at a very small scale: '
    'a small network, generated pictures, minutes on a CPU instead of days on many GPUs. '
    'It shows that the whole road works, from pretraining to the table, with every part real. '
    'It does not show the paper’s result: {seeds}, differences of a few points between the rows are noise, '
    'and their order may change from one seed to the next.'
)


def write_report(results: str | Path, suite: str, output: str | Path, work_root: str | Path) -> Path:
    """Write the report on `suite` to `output` and return that path; an older file is replaced in one step.

    The page loads nothing from outside and runs no script. Artifacts and data sets are looked for below
    `work_root` and at their paths as recorded; one that is gone becomes a sentence in the report.

    Raises InputError if the suite has no record, if a record is unsound, or if `output` cannot be written.
    """
    records = load_suite(results, suite)
    table = table_of_suite(records)
    template = importlib.resources.files('spark_bench.records').joinpath('report_template.html')
    page = string.Template(template.read_text(encoding='utf-8')).substitute(
        title=escape(f'SparK benchmark: {suite}'),
        suite=escape(suite),
        summary=_summary(records),
        note=_scale_note(suite, records),
        table=_table(table, records),
        legend=_legend(table),
        bars=_figure(
            bar_chart(table),
            'The values of the table; error bars show the standard deviation over seeds.',
            'No value to draw yet.',
        ),
        curves=_curves(records),
        reconstructions=_galleries(
            reconstruction_galleries(records, work_root),
            'small',
            'The same pictures under the same masks. Visible patches are pasted back. Of a masked patch the network '
            'paints the structure; mean colour and contrast are the original’s, as the loss normalises them away.',
            'No pretraining in this suite yet.',
        ),
        detections=_galleries(
            detection_galleries(records, work_root),
            'large',
            'Validation pictures; detections with a score of 0.3 and more.',
            'No detection in this suite yet.',
        ),
        provenance=_provenance(records),
    )
    return write_text_atomically(output, page)


def _summary(records: Sequence[Record]) -> str:
    measured = [r for r in records if r.origin == 'measured']
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
    if measured:
        parts.append(f'{_duration(seconds)} of computing')
    parts += machines
    if days:
        parts.append(days[0] if len(days) == 1 else f'{days[0]} to {days[-1]}')
    return ' · '.join(escape(part) for part in parts)


def _scale_note(suite: str, records: Sequence[Record]) -> str:
    if not suite.startswith('demo'):
        return ''
    seeds = len({r.seed for r in records})
    words = 'with one seed' if seeds == 1 else f'even with {seeds} seeds'
    return f'<p class="note">{DEMO_NOTE.format(seeds=words)}</p>'


def _table(table: Table, records: Sequence[Record]) -> str:
    heads = ['<th scope="col">method</th>']
    for column in table.columns:
        better = 'higher is better' if column.is_percent else 'lower is better'
        heads.append(f'<th scope="col" class="number" title="{better}">{escape(column.heading)}</th>')
        heads.append(
            f'<th scope="col" class="number delta">Δ<span class="unseen"> {escape(column.label)}, '
            f'difference from {escape(table.baseline)}</span></th>'
        )
    colours = method_colours([row.method for row in table.rows])
    bodies = []
    for arch in table.archs:
        lines = [f'<tr class="group"><th scope="rowgroup" colspan="{len(heads)}"><span>{escape(arch)}</span></th></tr>']
        for row in (row for row in table.rows if row.arch == arch):
            dot = f'<i style="background:{colours[row.method]}"></i>'
            line = [f'<th scope="row">{dot}{escape(row.label)}</th>']
            for cell, column in zip(row.cells, table.columns, strict=True):
                text = _linked(value_text(cell, column), (row.origin, column.task, row.arch, row.method), records)
                line.append(f'<td class="number{" best" if cell.best else ""}">{text}</td>')
                line.append(f'<td class="number delta {delta_verdict(cell, column)}">{delta_text(cell, column)}</td>')
            lines.append(f'<tr>{"".join(line)}</tr>')
        bodies.append(f'<tbody>{"".join(lines)}</tbody>')
    percent = 'Accuracy and average precision in percent. ' if any(c.is_percent for c in table.columns) else ''
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="Results table"><table>'
        f'<caption><span>{escape(percent + table.note())} Bold: the best of a backbone. A value links to its '
        f'record.</span></caption><thead><tr>{"".join(heads)}</tr></thead>{"".join(bodies)}</table></div>'
    )


def _linked(text: str, cell: tuple[str, str, str, str], records: Sequence[Record]) -> str:
    sources = [r for r in records if (r.origin, r.task, r.arch, r.method) == cell]
    if not sources:
        return escape(text)
    return f'<a href="#{_anchor(min(sources, key=lambda r: r.seed))}">{escape(text)}</a>'


def _legend(table: Table) -> str:
    methods = [m for m in order_methods(row.method for row in table.rows) if m in METHOD_NOTES]
    return ''.join(f'<dt>{escape(m)}</dt><dd>{escape(METHOD_NOTES[m])}</dd>' for m in methods)


def _figure(svg: str | None, caption: str, absent: str) -> str:
    if svg is None:
        return f'<p class="absent">{escape(absent)}</p>'
    return (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">{svg}</div>'
        f'<figcaption>{escape(caption)}</figcaption></figure>'
    )


def _curves(records: Sequence[Record]) -> str:
    names = {'pretrain': 'Pretraining', 'classification': 'Classification', 'detection': 'Detection'}
    parts = []
    for task in names:
        svg = loss_curves(records, task)
        if svg is None and task == 'classification':
            continue
        caption = f'{names[task]} loss at each step, faint as logged, strong as a moving average.'
        parts.append(f'<h3>{names[task]}</h3>' + _figure(svg, caption, f'No {names[task].lower()} loss recorded yet.'))
    return ''.join(parts)


def _galleries(galleries: Iterable[Gallery], size: str, caption: str, absent: str) -> str:
    parts = []
    for gallery in galleries:
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


def _provenance(records: Sequence[Record]) -> str:
    rank = {method: i for i, method in enumerate(order_methods(r.method for r in records))}
    ordered = sorted(records, key=lambda r: (r.arch, TASKS.index(r.task), rank[r.method], r.seed, r.origin))
    return ''.join(_record(record, ordered) for record in ordered)


def _record(record: Record, records: Sequence[Record]) -> str:
    metrics = ', '.join(f'{k} {"–" if v is None else f"{v:.4g}"}' for k, v in record.metrics.items())
    took = '' if record.wall_time_s is None else f' · {_duration(record.wall_time_s)}'
    environment, dataset = record.environment or {}, record.dataset or {}
    revision = environment.get('git_revision') or 'not a git checkout'
    if environment.get('git_dirty'):
        revision += ', with uncommitted changes'
    packages = ', '.join(f'{name} {version}' for name, version in environment.get('packages', {}).items())
    machine = [
        environment.get('gpu'),
        environment.get('cpu'),
        f'{environment.get("cores")} cores',
        f'{environment.get("threads")} threads',
        f'{environment.get("memory_gb")} GB of memory',
    ]
    data = [
        dataset.get('name'),
        f'{dataset.get("train_images")} training and {dataset.get("val_images")} validation pictures',
        dataset.get('sha256'),
    ]
    facts = {
        'record': '/'.join(map(str, record.identity)) + '.json',
        'metrics': metrics,
        'config hash': record.config_hash,
        'config': record.config,
        'source': record.source and record.source + ('' if record.verified else ' (not verified)'),
        'data': ' · '.join(filter(None, data)) if dataset else None,
        'git revision': revision if environment else None,
        'hardware': ' · '.join(filter(None, machine)) if environment else None,
        'system': f'{environment["platform"]}, Python {environment["python"]}' if environment else None,
        'packages': packages,
        'started': record.started_at,
        'wall time': None if record.wall_time_s is None else f'{record.wall_time_s:.1f} s',
    }
    entries = ''.join(f'<dt>{name}</dt><dd>{escape(str(value))}</dd>' for name, value in facts.items() if value)
    # The identifier is inside: browsers open a closed <details> for a link to its content.
    return (
        f'<details><summary><b>{escape(record.task)}</b> · {escape(record.arch)} · {escape(record.method)} · '
        f'seed {record.seed}{took}</summary>'
        f'<dl id="{_anchor(record)}">{entries}{_weights(record, records)}</dl></details>'
    )


def _weights(record: Record, records: Sequence[Record]) -> str:
    weights: Any = record.weights
    if not weights:
        return ''
    text = escape(f'{weights["path"]} · {weights["sha256"]}')
    origin = next(
        (
            r
            for r in records
            if r.task == 'pretrain'
            and r.arch == record.arch
            and r.method == record.method
            and r.config_hash == weights['config_hash']
        ),
        None,
    )
    link = f' · <a href="#{_anchor(origin)}">its pretraining</a>' if origin else ''
    return f'<dt>started from</dt><dd>{text}{link}</dd>'


def _anchor(record: Record) -> str:
    return '-'.join(['record', *map(str, record.identity)])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f'{rest} s'
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'
