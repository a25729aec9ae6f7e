"""What every figure shares: colours, style, and its two forms, a part of a page and files."""

import html
import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spark_bench.records.store import write_output, write_text_output
from spark_bench.records.table import order_methods

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    'TEXT_COLOUR',
    'Drawing',
    'inline_svg',
    'labelled',
    'legend_above',
    'method_colours',
    'save_drawing',
    'spoken',
]

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


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour for each method; the same methods get the same colours in every figure of one report."""
    further = itertools.cycle(FURTHER_COLOURS)
    return {m: COLOURS[m] if m in COLOURS else next(further) for m in order_methods(methods)}


def spoken(title: str, values: Sequence[str]) -> str:
    """`title` and the values in one text; of many, the first: a screen reader is not to read out hundreds."""
    rest = len(values) - SPOKEN_VALUES
    more = [f'and {rest} more'] if rest > 0 else []
    return f'{title}. ' + '; '.join([*values[:SPOKEN_VALUES], *more])


def legend_above(figure: 'Figure', entries: Mapping[str, 'Artist'], columns: int = 5) -> None:
    """A legend above all panels, of labels and what stands for them."""
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc='outside upper left',
            ncols=min(len(entries), columns),
            handlelength=1.4,
            columnspacing=1.4,
            fontsize=10,
        )


def labelled(axes: 'Axes') -> dict[str, 'Artist']:
    """What `axes` has drawn by label, for a legend.

    matplotlib itself would leave out labels that begin with an underscore, as the names of methods may.
    """
    named = {str(artist.get_label()): artist for artist in (*axes.lines, *axes.containers)}
    return {name: artist for name, artist in named.items() if not re.fullmatch(UNNAMED, name)}


def inline_svg(drawing: Drawing) -> str:
    """A bare <svg> element for a page: it takes the page's text colour and font, and carries a text alternative."""
    svg = _render(drawing, 'svg', transparent=True, metadata=NO_METADATA).decode('utf-8')
    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{drawing.name}-\1"', svg)
    svg = re.sub(r'url\(#([^)]+)\)', rf'url(#{drawing.name}-\1)', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{drawing.name}-\1"', svg)
    # Hundredths of a point are finer than any screen, and half as long to write as what matplotlib gives.
    svg = re.sub(r' d="[^"]+"', lambda path: re.sub(r'(\.\d\d)\d+', r'\1', path[0]), svg)
    svg = svg.replace(TEXT_COLOUR, 'currentColor')
    # The attribute yields to a page's style sheet; alone, the figure is grey, legible on light and dark.
    label = html.escape(' '.join(drawing.description.split()))
    return svg.replace('<svg ', f'<svg role="img" aria-label="{label}" color="#808890" ', 1)


def save_drawing(drawing: Drawing, folder: str | Path) -> list[Path]:
    """Write `<folder>/<name>.svg` and `.png` (200 dots an inch), black on white; return the two paths.

    Raises InputError if the folder cannot be written.
    """
    svg = _render(drawing, 'svg', facecolor='white', metadata=NO_METADATA).decode('utf-8')
    png = _render(drawing, 'png', facecolor='white', dpi=200, metadata={'Software': None})
    path = Path(folder, f'{drawing.name}.svg')
    write_text_output(path, svg.replace(TEXT_COLOUR, '#000000'))
    return [path, write_output(path.with_suffix('.png'), png)]


def _render(drawing: Drawing, form: str, **options) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=drawing.size, layout='constrained')
        figure.get_layout_engine().set(h_pad=0.1)
        drawing.draw(figure)
        figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()
