"""A table in words, as a terminal shows it and as a file or a pipe holds it.

For a file it is set here and not by rich, which takes 0.3 s for 300 rows, and this 0.01 s.
"""

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

if TYPE_CHECKING:
    import rich.table

Words = tuple[tuple[str, str], ...]  # of a cell: pieces of text, each with a style of rich's or ''
WORD_WIDTH = 12  # of a column that is no figure: longer words are broken where a terminal is narrow
NOTE_WIDTH = 100  # at which notes are broken where the columns take less


@dataclass(frozen=True)
class Grid:
    """Rows of cells under headings, with a title above and notes below."""

    title: str
    headings: Sequence[str]
    right: Sequence[bool]  # of each column, whether it stands to the right
    rows: Sequence[Sequence[Words]]
    notes: Sequence[str]  # a paragraph each
    breaks: frozenset[int] = frozenset()  # numbers of the rows that begin a group

    def to_rich(self) -> 'rich.table.Table':
        """As rich draws it, in the width of its console."""
        import rich.box
        import rich.table
        import rich.text

        drawn = rich.table.Table(
            title=rich.text.Text(self.title) if self.title else None,
            box=rich.box.SIMPLE_HEAD,
            caption=rich.text.Text('\n'.join(self.notes)),
            title_justify='left',
            caption_justify='left',
        )
        for heading, right, width in zip(self.headings, self.right, self._least_widths(), strict=True):
            drawn.add_column(
                rich.text.Text(heading),
                justify='right' if right else 'left',
                min_width=width,
                no_wrap=right,
                overflow='fold',
            )
        for number, row in enumerate(self.rows):
            cells = (rich.text.Text.assemble(*words) for words in row)
            drawn.add_row(*cells, end_section=number + 1 in self.breaks)
        return drawn

    def fits(self, width: int) -> bool:
        """Whether the table can be drawn in so many columns with every figure whole."""
        least = self._least_widths()
        return sum(least) + 3 * len(least) + 1 <= width

    def _least_widths(self) -> list[int]:
        # A figure is never broken; words are, once they are longer than WORD_WIDTH.
        columns = zip(self.headings, *self._texts(), strict=True)
        return [
            min(max(map(cell_len, column)), 10**6 if right else WORD_WIDTH)
            for column, right in zip(columns, self.right, strict=True)
        ]

    def _texts(self) -> list[list[str]]:
        return [[''.join(piece for piece, _ in words) for words in row] for row in self.rows]

    def to_list(self, width: int) -> str:
        """As a paragraph a row with a line a cell, for a terminal that is too narrow for the table."""
        lines = [self.title] if self.title else []
        names = self.right.index(True) if True in self.right else 1  # columns that say what a row is of
        above = [''] * names
        for row in self._texts():
            # The rows of a group name what they share in the first of them alone.
            above = [text or before for text, before in zip(row[:names], above, strict=True)]
            figures = zip(self.headings[names:], row[names:], strict=True)
            lines += ['', ' '.join(above), *(f'  {heading}: {text}' for heading, text in figures if text)]
        lines += ['', *(textwrap.fill(note, max(width, WORD_WIDTH)) for note in self.notes)]
        return '\n'.join(lines) + '\n'

    def to_plain(self) -> str:
        """As lines without styles, as long as the columns need: what is no terminal has no width to fit into."""
        texts = self._texts()
        widths = [max(map(cell_len, column)) for column in zip(self.headings, *texts, strict=True)]
        total = sum(widths) + 3 * (len(widths) - 1)
        lines = [self.title] if self.title else []
        lines += ['', self._line(self.headings, widths), f' {"─" * (total + 2)}']
        for number, row in enumerate(texts):
            lines += [''] * (number in self.breaks) + [self._line(row, widths)]
        lines.append('')
        for note in self.notes:
            lines += textwrap.wrap(note, max(total, NOTE_WIDTH), break_long_words=False) or ['']
        return '\n'.join(lines) + '\n'

    def _line(self, texts: Sequence[str], widths: Sequence[int]) -> str:
        spaces = [' ' * (width - cell_len(text)) for text, width in zip(texts, widths, strict=True)]
        cells = (s + t if right else t + s for t, s, right in zip(texts, spaces, self.right, strict=True))
        return f'  {"   ".join(cells)}'.rstrip()


def plain_text(*grids: Grid) -> str:
    """All of ``grids`` as ``Grid.to_plain`` gives them, with a free line between two."""
    return '\n'.join(grid.to_plain() for grid in grids)


def show(*grids: Grid) -> None:
    """Print with styles to a terminal, and as ``plain_text`` anywhere else."""
    if not sys.stdout.isatty():
        sys.stdout.write(plain_text(*grids))
        return
    import rich.console

    console = rich.console.Console()
    for grid in grids:
        if grid.fits(console.width):
            console.print(grid.to_rich())
        else:
            sys.stdout.write(grid.to_list(console.width))
