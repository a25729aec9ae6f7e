"""A table for Markdown."""

import re
from collections.abc import Iterable

from spark_bench.tables.parts import Table
from spark_bench.tables.text import delta_text, source_marks, value_text


def to_markdown(table: Table) -> str:
    """A Markdown table under its title, the best figures bold; below it the note, failures and sources."""
    headings = ['backbone', 'method']
    for column in table.columns:
        headings += [escape_markdown(column.heading), 'Δ']
    lines = [headings, ['---', '---', *['---:'] * (2 * len(table.columns))]]
    for row in table.rows:
        line = [escape_markdown(row.arch), escape_markdown(row.label)]
        for cell, column in zip(row.cells, table.columns, strict=True):
            text = value_text(cell, column)
            marks = ''.join(rf' \[{number}\]' for number in source_marks(cell, table))
            line += [(f'**{text}**' if cell.best else text) + marks, delta_text(cell, column)]
        lines.append(line)
    parts = [f'**{escape_markdown(table.title)}**\n'] if table.title else []
    parts += [*markdown_lines(lines), '', *([escape_markdown(table.note), ''] if table.note else [])]
    if table.failures:
        parts += ['Failed:', '', *(f'- {escape_markdown(line)}' for line in table.failures), '']
    if table.sources:
        listed = (f'{number}. {escape_markdown(source)}' for number, source in enumerate(table.sources, 1))
        parts += ['Sources:', '', *listed, '']
    return '\n'.join(parts)


def markdown_lines(rows: Iterable[Iterable[str]]) -> list[str]:
    """Rows of cells as the lines of a Markdown table."""
    return ['| ' + ' | '.join(row) + ' |' for row in rows]


def escape_markdown(text: str) -> str:
    """``text`` without what Markdown would read as markup or as the end of a cell."""
    text = re.sub(r'([\\|*`<>\[\]#&$~])', r'\\\1', ' '.join(text.split()))
    # Between letters an underscore is plain text, as in convnext_small.
    return re.sub(r'(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])', r'\_', text)
