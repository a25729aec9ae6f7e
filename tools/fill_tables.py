#!/usr/bin/env python3
"""Put tables and figures into README.md and docs/, from the records of this clone: python tools/fill_tables.py.

A table stands between two comments, `<!-- table SUITE NAME [COLUMN …] -->` and `<!-- end of the table -->`. Where
columns are named, as METRIC or TASK/METRIC, they alone are shown, and rows that have a figure in one of them. A figure
is an image that a page shows as figures/SUITE/NAME.svg; `spark-bench report --figures` has the names. What
tools/judge_mini.py prints stands between `<!-- verdicts -->` and `<!-- end of the verdicts -->`.
"""

import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import judge_mini

from spark_bench.errors import InputError
from spark_bench.records import load_all
from spark_bench.report.drawings import draw_charts, draw_curves
from spark_bench.report.figures import save_drawing
from spark_bench.suites.definition import committed_tables
from spark_bench.tables.markdown import to_markdown
from spark_bench.tables.parts import Table

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r'(?s)(<!-- table (\S+) (\S+)((?: [\w/]+)*) -->\n).*?(<!-- end of the table -->)')
VERDICTS = re.compile(r'(?s)(<!-- verdicts -->\n).*?(<!-- end of the verdicts -->)')
FIGURE = re.compile(r'!\[[^\]]*\]\((?:docs/)?figures/([\w.-]+)/([\w.-]+)\.svg\)')


def fill(text: str) -> str:
    """The text with its tables as the records have them.

    Raises:
        InputError: naming a table or a column that there is not.
    """

    def table(found: re.Match) -> str:
        suite, name = found[2], found[3]
        tables = {table.name: table for table in committed_tables(suite)}
        if name not in tables:
            raise InputError(f'results has no table {name} of suite {suite}: it has {", ".join(tables) or "none"}')
        return f'{found[1]}{to_markdown(_chosen(tables[name], found[4].split()))}{found[5]}'

    def verdicts(found: re.Match) -> str:
        return f'{found[1]}{judge_mini.judged(load_all(ROOT / "results", "mini"))}{found[2]}'

    return VERDICTS.sub(verdicts, BLOCK.sub(table, text))


def _chosen(table: Table, names: list[str]) -> Table:
    """The table's columns of these names; all where there are none."""
    if not names:
        return table
    of_column = [{column.metric, f'{column.task}/{column.metric}'} for column in table.columns]
    unknown = sorted(set(names) - set().union(*of_column))
    if unknown:
        known = ', '.join(f'{column.task}/{column.metric}' for column in table.columns)
        raise InputError(f'table {table.name} has no {", ".join(unknown)}: it has {known}')
    places = [place for place, known in enumerate(of_column) if known & set(names)]
    rows = tuple(replace(row, cells=tuple(row.cells[place] for place in places)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in places), rows=rows).without_empty_rows()


def figures(texts: Iterable[str]) -> dict[Path, bytes]:
    """The figures that the pages show, by their paths, as the records have them.

    Raises:
        InputError: naming a figure that there is not.
    """
    drawn = {}
    for suite, name in sorted({(found[1], found[2]) for text in texts for found in FIGURE.finditer(text)}):
        records = load_all(ROOT / 'results', suite)
        charts = [*draw_charts(committed_tables(suite), records), *draw_curves(records)]
        known = {chart.name: chart for chart in charts}
        if name not in known:
            raise InputError(f'results has no figure {name} of suite {suite}: it has {", ".join(known) or "none"}')
        with tempfile.TemporaryDirectory() as folder:
            path, _ = save_drawing(known[name], folder)
            drawn[ROOT / f'docs/figures/{suite}/{name}.svg'] = path.read_bytes()
    return drawn


_WORDS, _PLACES = rb'<(?:text|desc)[^>]*>([^<]+)', rb'-?\d+\.\d+'


def is_same(old: bytes, new: bytes) -> bool:
    """Whether two contents are equal; of figures, their words, and their places to a tenth of a point, as machines
    round these otherwise."""
    if b'<svg' not in new:
        return old == new
    words, places = ([re.findall(pattern, svg) for svg in (old, new)] for pattern in (_WORDS, _PLACES))
    if words[0] != words[1] or len(places[0]) != len(places[1]):
        return False
    return all(abs(float(a) - float(b)) < 0.1 for a, b in zip(*places, strict=True))


def pages() -> list[Path]:
    """The files that may hold tables."""
    return [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def main() -> int:
    """Rewrite what has changed, and name it; exit status 0."""
    texts = {path: fill(path.read_text()) for path in pages()}
    contents = {path: text.encode() for path, text in texts.items()} | figures(texts.values())
    for path, content in contents.items():
        if not (path.exists() and is_same(path.read_bytes(), content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            print(path.relative_to(ROOT))
    return 0


if __name__ == '__main__':
    sys.exit(main())
