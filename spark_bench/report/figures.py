"""What every figure shares: colours, style, words, and its two forms, a part of a page and files."""

import html
import io
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spark_bench.files import write_output
from spark_bench.tables.build import order_methods
from spark_bench.tables.parts import Cell, Column, Table
from spark_bench.tables.text import DAGGER

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by the colour-blind too, darkened or lightened so that each has a
# contrast of about 3:1 on white and on near-black; the baselines are the quiet ones.
COLOURS = {
    'scratch': '#8b949e',
    'supervised': '#a08a6c',
    'spark': '#2f81f7',
    'no_sparse': '#d2721b',
    'no_hierarchy': '#1a9e77',
    'black_mosaic': '#bf5fa8',
}
FURTHER_COLOURS = (
    '#b08800',
    '#4b9fc4',
    '#cf4a4a',
    '#7a6fd0',
    '#6f8f3a',
    '#c4617e',
    '#2a9d9d',
    '#a56a43',
    '#9a7fb8',
    '#5f8a8b',
)
# Stands for the colour of the surrounding text while matplotlib draws; no other colour may equal it.
TEXT_COLOUR = '#010203'
STYLE = {
    'svg.fonttype': 'none',  # text stays text: it can be searched, read aloud and set in the page's font
    'svg.hashsalt': 'spark_bench',  # without a salt the identifiers are random
    'font.family': 'sans-serif',
    'font.size': 11,
    'text.color': TEXT_COLOUR,
    'axes.edgecolor': TEXT_COLOUR,
    'axes.labelcolor': TEXT_COLOUR,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.unicode_minus': True,
    'hatch.color': TEXT_COLOUR,
    'hatch.linewidth': 0.6,
    'xtick.color': TEXT_COLOUR,
    'ytick.color': TEXT_COLOUR,
    'legend.frameon': False,
}
NO_METADATA = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
SPOKEN_VALUES = 60
UNNAMED = r'_nolegend_|_child\d+|_container\d+|'  # what matplotlib calls a line or a group of bars by itself


@dataclass(frozen=True)
class Drawing:
    """One figure before it takes a form."""

    name: str  # of its files, and before every identifier in it, so that several can stand in one page
    title: str
    caption: str
    description: str  # what it shows, in words, for those who cannot see it
    size: tuple[float, float]  # width and height in inches
    draw: Callable[['Figure'], None]


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """A colour for each method; the same methods get the same colours in every figure of one report."""
    further = itertools.cycle(FURTHER_COLOURS)
    return {m: COLOURS[m] if m in COLOURS else next(further) for m in order_methods(methods)}


def dagger_note(cells: Iterable[Cell]) -> str:
    """What the dagger means, where one of the cells carries it."""
    unverified = any(not (cell.verified and cell.delta_verified) for cell in cells if cell.value is not None)
    return f' {DAGGER}: transcribed, not checked against its source, and no claim.' if unverified else ''


def not_drawn(names: Sequence[str]) -> str:
    """What a caption says of what a figure has no room for; empty where that is nothing."""
    return f' Not drawn, for want of room: {", ".join(names)}.' if names else ''


def cell_words(
    table: Table, archs: Collection[str], columns: Sequence[int], text_of: Callable[[Cell, Column], str]
) -> list[str]:
    """Backbone, row, column and what ``text_of`` says of it, for each cell of which it says anything."""
    return [
        f'{row.arch} {row.label} {table.columns[i].label} {text_of(row.cells[i], table.columns[i])}'
        for row in table.rows
        if row.arch in archs
        for i in columns
        if text_of(row.cells[i], table.columns[i])
    ]


def spoken(title: str, values: Sequence[str]) -> str:
    """``title`` and the values in one text; of many, the first: a screen reader is not to read out hundreds."""
    rest = len(values) - SPOKEN_VALUES
    more = [f'and {rest} more'] if rest > 0 else []
    return f'{title}. ' + '; '.join([*values[:SPOKEN_VALUES], *more])


def dress(axes: 'Axes', title: str, grid: Literal['both', 'x', 'y'] = 'both') -> None:
    """Give a panel its title and faint lines along its values: 'x', 'y' or 'both'."""
    axes.set_title(title, loc='left', fontsize=11, fontweight='bold')
    axes.grid(axis=grid, color=TEXT_COLOUR, alpha=0.15, linewidth=0.8)


def legend_above(
    figure: 'Figure', panels: Iterable['Axes'], columns: int = 5, order: Callable[[Iterable[str]], Iterable[str]] = iter
) -> None:
    """A legend above all panels of what these have drawn, each label once.

    matplotlib itself would leave out labels that begin with an underscore, as the names of methods may.
    """
    named: dict[str, Artist | Container] = {}
    for axes in panels:
        artists: list[Artist | Container] = [*axes.lines, *axes.containers]
        named |= {str(artist.get_label()): artist for artist in artists}
    entries = {name: named[name] for name in order(name for name in named if not re.fullmatch(UNNAMED, name))}
    if entries:
        figure.legend(
            list(entries.values()),  # type: ignore[arg-type]  # matplotlib's stubs forget containers
            list(entries),
            loc='outside upper left',
            ncols=min(len(entries), columns),
            handlelength=1.4,
            columnspacing=1.4,
            fontsize=10,
        )


def inline_svg(drawing: Drawing) -> str:
    """A bare <svg> element for a page: it takes the page's text colour and font, and carries a text alternative."""
    svg = _render(drawing, 'svg', transparent=True, metadata=NO_METADATA).decode('utf-8')
    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf'\1{drawing.name}-', svg)
    # Hundredths of a point are finer than any screen, and half as long to write as what matplotlib gives.
    svg = re.sub(r' d="[^"]+"', lambda path: re.sub(r'(\.\d\d)\d+', r'\1', path[0]), svg)
    svg = svg.replace(TEXT_COLOUR, 'currentColor')
    # The attribute yields to a page's style sheet; alone, the figure is grey, legible on light and dark.
    return svg.replace('<svg ', f'<svg role="img" aria-label="{_in_words(drawing)}" color="#808890" ', 1)


def _in_words(drawing):
    return html.escape(' '.join(drawing.description.split()))


def save_drawing(drawing: Drawing, folder: str | Path) -> list[Path]:
    """Write ``<folder>/<name>.svg``, which tells its values in words too, and ``.png`` (200 dots an inch), black on
    white; return the two paths.

    Raises:
        InputError: if the folder cannot be written.
    """
    svg = _render(drawing, 'svg', facecolor='white', metadata=NO_METADATA).decode('utf-8')
    png = _render(drawing, 'png', facecolor='white', dpi=200, metadata={'Software': None})
    told = f'<desc>{_in_words(drawing)}</desc>'
    svg = re.sub(r'<svg\b[^>]*>', lambda start: f'{start[0]}\n {told}', svg, count=1)
    path = Path(folder, f'{drawing.name}.svg')
    return [write_output(path, svg.replace(TEXT_COLOUR, '#000000')), write_output(path.with_suffix('.png'), png)]


def _render(drawing: Drawing, form: str, **options: Any) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=drawing.size, layout=ConstrainedLayoutEngine(h_pad=0.1))
        drawing.draw(figure)
        figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()
