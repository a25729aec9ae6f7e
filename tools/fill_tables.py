#!/usr/bin/env python3
"""Put the tables that README.md and docs/ show into them, from the records of this clone: python tools/fill_tables.py.

A table stands between two comments, `<!-- table SUITE NAME [METRIC …] -->` and `<!-- end of the table -->`; where
metrics are named, their columns alone are shown.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path

from spark_bench.errors import InputError
from spark_bench.suites.definition import committed_tables
from spark_bench.tables.markdown import to_markdown
from spark_bench.tables.parts import Table

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r'(?s)(<!-- table (\S+) (\S+)((?: \w+)*) -->\n).*?(<!-- end of the table -->)')


def fill(text: str) -> str:
    """The text with its tables as the records have them.

    Raises:
        InputError: naming a table or a metric that there is not.
    """

    def table(found: re.Match) -> str:
        suite, name = found[2], found[3]
        tables = {table.name: table for table in committed_tables(suite)}
        if name not in tables:
            raise InputError(f'results has no table {name} of suite {suite}: it has {", ".join(tables) or "none"}')
        return f'{found[1]}{to_markdown(_of_metrics(tables[name], found[4].split()))}{found[5]}'

    return BLOCK.sub(table, text)


def _of_metrics(table: Table, metrics: list[str]) -> Table:
    """The table's columns of these metrics; all where none is named."""
    known = [column.metric for column in table.columns]
    unknown = set(metrics) - set(known)
    if unknown:
        raise InputError(f'table {table.name} has no {", ".join(sorted(unknown))}: it has {", ".join(known)}')
    places = [place for place, metric in enumerate(known) if metric in metrics or not metrics]
    rows = tuple(replace(row, cells=tuple(row.cells[place] for place in places)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in places), rows=rows)


def pages() -> list[Path]:
    """The files that may hold tables."""
    return [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def main() -> int:
    """Rewrite those that have changed, and name them; exit status 0."""
    for path in pages():
        text = path.read_text()
        if fill(text) != text:
            path.write_text(fill(text))
            print(path.relative_to(ROOT))
    return 0


if __name__ == '__main__':
    sys.exit(main())
