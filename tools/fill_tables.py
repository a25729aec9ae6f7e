#!/usr/bin/env python3
"""Put the tables that README.md and docs/ show into them, from the records of this clone: python tools/fill_tables.py.

A table stands between two comments, `<!-- table SUITE NAME -->` and `<!-- end of the table -->`.
"""

import re
import sys
from pathlib import Path

from spark_bench.errors import InputError
from spark_bench.suites.definition import committed_tables
from spark_bench.tables.markdown import to_markdown

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r'(?s)(<!-- table (\S+) (\S+) -->\n).*?(<!-- end of the table -->)')


def fill(text: str) -> str:
    """The text with its tables as the records have them.

    Raises:
        InputError: naming a table that there is not.
    """

    def table(found: re.Match) -> str:
        suite, name = found[2], found[3]
        tables = {table.name: table for table in committed_tables(suite)}
        if name not in tables:
            raise InputError(f'results has no table {name} of suite {suite}: it has {", ".join(tables) or "none"}')
        return f'{found[1]}{to_markdown(tables[name])}{found[4]}'

    return BLOCK.sub(table, text)


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
