#!/usr/bin/env python3
"""Put the tables that README.md shows into it, from the records of this clone: python tools/readme.py.

A table stands between two comments, `<!-- table SUITE NAME -->` and `<!-- end of the table -->`.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from spark_bench.errors import InputError  # noqa: E402
from spark_bench.suites.definition import committed_tables  # noqa: E402
from spark_bench.tables.markdown import to_markdown  # noqa: E402

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


def main() -> int:
    """Rewrite README.md; exit status 0."""
    path = ROOT / 'README.md'
    path.write_text(fill(path.read_text()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
