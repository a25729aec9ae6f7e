"""A table as a fragment of a page."""

from collections.abc import Callable
from html import escape

from spark_bench.records.table_parts import Cell, Column, Row, Table
from spark_bench.records.table_text import DAGGER, delta_text, delta_verdict, source_marks, value_text

__all__ = ['to_html']

Link = Callable[[Row, Column], str | None]


def to_html(table: Table, link: Link | None = None, prefix: str = 'table') -> str:
    """A <table>, and below it its failures and sources: a fragment for a page that has styles and scripts.

    Every cell has `data-sort` (a number with every digit, or text; empty where there is none), every row
    `data-arch`, `data-method`, `data-origin` and `data-status` (the worst of its cells), and every column
    heading `data-sort-type`, 'text' or 'number': what a script needs to sort and filter. The row's heading has
    `data-arch` too, for a narrow page that has no room for the column of backbones. Classes tell what a cell
    is: number, best, delta, better, worse, missing, incomplete, failed, unverified; `first` is a backbone's first
    row.

    Args:
        link: gives the href of a cell's value, such as the anchor of its record; None for no link.
        prefix: begins every identifier, with the table's name; fragments of one page need different ones.
    """
    identifier = '-'.join(filter(None, (prefix, table.name)))
    rows = []
    for i, row in enumerate(table.rows):
        first = i == 0 or table.rows[i - 1].arch != row.arch
        rows.append(_row(table, row, first, link, identifier))
    title = f'<strong>{escape(table.title)}.</strong> ' if table.title else ''
    parts = [
        f'<table class="results" id="{escape(identifier)}">',
        f'<caption><span>{title}{escape(table.note())}</span></caption>',
        f'<thead><tr>{_headings(table)}</tr></thead>',
        f'<tbody>{"".join(rows)}</tbody>',
        '</table>',
    ]
    if table.failures:
        lines = ''.join(f'<li>{escape(line)}</li>' for line in table.failures)
        parts.append(f'<p class="failures">Failed:</p><ul class="failures">{lines}</ul>')
    if table.sources:
        lines = ''.join(
            f'<li id="{escape(identifier)}-source-{number}">{escape(source)}</li>'
            for number, source in enumerate(table.sources, 1)
        )
        parts.append(f'<p class="sources">Sources:</p><ol class="sources">{lines}</ol>')
    return '\n'.join(parts) + '\n'


def _headings(table: Table) -> str:
    heads = [f'<th scope="col" data-sort-type="text">{name}</th>' for name in ('backbone', 'method')]
    for column in table.columns:
        better = 'higher is better' if column.is_percent else 'lower is better'
        heads.append(
            f'<th scope="col" class="number" data-sort-type="number" title="{better}">{escape(column.heading)}</th>'
        )
        heads.append(
            f'<th scope="col" class="number delta" data-sort-type="number">Δ<span class="unseen"> '
            f'{escape(column.label)}, difference from {escape(table.baseline)}</span></th>'
        )
    return ''.join(heads)


def _row(table: Table, row: Row, first: bool, link: Link | None, identifier: str) -> str:
    statuses = {cell.status for cell in row.cells}
    status = next(s for s in ('failed', 'incomplete', 'missing', 'complete') if s in statuses or s == 'complete')
    attributes = {'arch': row.arch, 'method': row.method, 'origin': row.origin, 'status': status}
    data = ''.join(f' data-{name}="{escape(value)}"' for name, value in attributes.items())
    first_class = ' class="first"' if first else ''
    parts = [
        f'<tr{first_class}{data}>',
        f'<td class="arch" data-sort="{escape(row.arch)}">{escape(row.arch)}</td>',
        f'<th scope="row" data-arch="{escape(row.arch)}" data-sort="{escape(f"{row.method} {row.origin}")}">'
        f'{_dagger(escape(row.label))}</th>',
    ]
    for cell, column in zip(row.cells, table.columns, strict=True):
        href = link(row, column) if link else None
        parts += [_value(table, cell, column, href, identifier), _delta(cell, column)]
    return ''.join([*parts, '</tr>\n'])


def _value(table: Table, cell: Cell, column: Column, href: str | None, identifier: str) -> str:
    classes = ['number', *(['best'] if cell.best else []), *(['unverified'] if not cell.verified else [])]
    classes += [cell.status] if cell.status != 'complete' else []
    text = _dagger(escape(value_text(cell, column)))
    text = f'<a href="{escape(href)}">{text}</a>' if href else text
    marks = ','.join(
        f'<a href="#{escape(identifier)}-source-{number}">{number}</a>' for number in source_marks(cell, table)
    )
    marks = f'<sup class="source">{marks}</sup>' if marks else ''
    title = f' title="{escape(_why(cell))}"' if cell.value is None else ''
    sort = '' if cell.value is None else repr(cell.value)
    return f'<td class="{" ".join(classes)}" data-sort="{sort}"{title}>{text}{marks}</td>'


def _delta(cell: Cell, column: Column) -> str:
    words = {True: 'beyond the noise', False: 'within the noise', None: 'noise unknown'}
    classes = ' '.join(filter(None, ['number', 'delta', delta_verdict(cell, column)]))
    if cell.delta is None:
        return f'<td class="{classes}" data-sort=""></td>'
    title = words[cell.delta_beyond_noise] if cell.delta_verified else 'from a figure that is not verified: no claim'
    text = _dagger(escape(delta_text(cell, column)))
    return f'<td class="{classes}" data-sort="{cell.delta!r}" title="{title}">{text}</td>'


def _why(cell: Cell) -> str:
    if cell.failures:
        return '; '.join(f'seed {seed} failed: {why}' for seed, why in cell.failures)
    return 'no record' if cell.seeds == 0 else f'{cell.n} of {cell.seeds} seeds have this figure'


def _dagger(text: str) -> str:
    return text.replace(DAGGER, f'<span class="dagger" title="not checked against its source">{DAGGER}</span>')
