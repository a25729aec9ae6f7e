"""A table as a fragment of a page."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from spark_bench.tables.noise import VERDICTS
from spark_bench.tables.parts import Cell, Column, Row, Table
from spark_bench.tables.text import DAGGER, delta_text, delta_verdict, figure_text, source_marks, value_text

if TYPE_CHECKING:
    import jinja2


@functools.cache
def templates(package: str) -> 'jinja2.Environment':
    """The templates of a package: what they print is escaped, and a name that they are not given is an error."""
    import jinja2  # 0.05 s that only pages should pay

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters['figure_text'] = figure_text
    return environment


def to_html(table: Table, link: Callable[[Row, Column], str | None] | None = None, prefix: str = 'table') -> str:
    """A <table>, and below it its failures and sources: a fragment for a page that has styles and scripts.

    Every cell has ``data-sort`` (a number with every digit, or text; empty where there is none), every row
    ``data-arch``, ``data-method``, ``data-origin`` and ``data-status``, and every column heading ``data-sort-type``,
    'text' or 'number': what a script needs to sort and filter. The row's heading has ``data-arch`` too, for a narrow
    page that has no room for the column of backbones. Classes tell what a cell is: number, best, delta, better, worse,
    missing, incomplete, mixed, failed, unverified; ``first`` is a backbone's first row.

    Args:
        link: gives the href of a cell's value, such as the anchor of its record; None for no link.
        prefix: begins every identifier, with the table's name; fragments of one page need different ones.
    """
    text = (
        templates('spark_bench.tables')
        .get_template('table.html')
        .render(
            table=table,
            link=link or (lambda row, column: None),
            identifier='-'.join(filter(None, (prefix, table.name))),
            value_text=value_text,
            delta_text=delta_text,
            delta_verdict=delta_verdict,
            source_marks=source_marks,
            reason=_reason,
            verdicts=VERDICTS,
            dagger=DAGGER,
        )
    )
    # Quotes by the names that tables have had so far, so that a table of the same records is the same file.
    return text.replace('&#39;', '&#x27;').replace('&#34;', '&quot;')


def _reason(cell: Cell) -> str:
    """Why a cell has no value."""
    if cell.failures:
        return '; '.join(f'seed {seed} failed: {why}' for seed, why in cell.failures)
    if cell.mixed:
        return f'its runs differ in more than their seeds: {cell.mixed}'
    return 'no record' if cell.seeds == 0 else f'{cell.n} of {cell.seeds} seeds have this figure'
