"""A table in words, as a terminal shows it and as a file or a pipe holds it."""

import functools
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.table

__all__ = ['Grid', 'Words', 'plain_text', 'show']

Words = tuple[tuple[str, str], ...]  # of a cell: pieces of text, each with a style of rich's or ''
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
            caption=rich.text.Text('\n'.join(self.notes)),
            box=rich.box.SIMPLE_HEAD,
            title_justify='left',
            caption_justify='left',
        )
        for heading, right in zip(self.headings, self.right, strict=True):
            drawn.add_column(rich.text.Text(heading), justify='right' if right else 'left')
        for number, row in enumerate(self.rows):
            cells = (rich.text.Text.assemble(*words) for words in row)
            drawn.add_row(*cells, end_section=number + 1 in self.breaks)
        return drawn

    def to_plain(self) -> str:
        """As lines without styles, as long as the columns need: what is no terminal has no width to fit into."""
        texts = [[''.join(piece for piece, _ in words) for words in row] for row in self.rows]
        widths = [max(map(_width, column)) for column in zip(self.headings, *texts, strict=True)]
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
        spaces = [' ' * (width - _width(text)) for text, width in zip(texts, widths, strict=True)]
        cells = (s + t if right else t + s for t, s, right in zip(texts, spaces, self.right, strict=True))
        return f'  {"   ".join(cells)}'.rstrip()


@functools.lru_cache(4096)
def _width(text: str) -> int:
    """How many columns `text` takes: letters of the East two, accents and what is not seen none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in 'WF' for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ('Mn', 'Me', 'Cf') for c in text)


def plain_text(*grids: Grid) -> str:
    """All of `grids` as `Grid.to_plain` gives them, with a free line between two."""
    return '\n'.join(grid.to_plain() for grid in grids)


def show(*grids: Grid) -> None:
    """Print with styles to a terminal, and as `plain_text` anywhere else."""
    if not sys.stdout.isatty():
        sys.stdout.write(plain_text(*grids))
        return
    import rich.console

    console = rich.console.Console()
    for grid in grids:
        console.print(grid.to_rich())
