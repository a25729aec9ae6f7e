"""Where the tables of a command go: to a file, or else to standard output, in one format."""

import sys
from collections.abc import Collection
from pathlib import Path

from spark_bench.errors import InputError
from spark_bench.files import claim_output, write_output
from spark_bench.tables.grid import Grid, show

SUFFIXES = {'.txt': 'terminal', '.md': 'markdown', '.csv': 'csv', '.tex': 'latex', '.html': 'html'}


def choose_format(name: str | None, output: str | None, known: Collection[str], own: bytes) -> str:
    """The format of what a command writes, before its work: as asked for, else as the output's name ends.

    Args:
        output: path of the file; None for standard output.
        own: how its files begin, see ``claim_output``.

    Raises:
        InputError: where the format cannot be told, or the file cannot be written.
    """
    if name is None:
        name = 'terminal' if output is None else SUFFIXES.get(Path(output).suffix.lower())
    if name not in known:
        raise InputError(f'--output {output}: no format ends so; name one with --format: {", ".join(known)}')
    if output is not None:
        claim_output(output, own)
    return name


def give(text: str, grids: Collection[Grid], name: str, output: str | None) -> None:
    """Write ``text`` to the file; without one print it, or the ``grids`` that it was made from in styles.

    Raises:
        InputError: if the file cannot be written.
    """
    if output is not None:
        print(f'written: {write_output(output, text)}')
    elif name == 'terminal':
        show(*grids)
    else:
        sys.stdout.write(text)
