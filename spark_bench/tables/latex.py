"""A table for LaTeX, in the style of booktabs."""

import re
import unicodedata

from spark_bench.tables.parts import Cell, Column, Table
from spark_bench.tables.text import delta_text, source_marks, value_text

# What LaTeX reads as a command, sets as another glyph in its default encoding, or does not know.
ESCAPES = {
    **{character: '\\' + character for character in '&%$#_{}'},
    '\\': r'\textbackslash{}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    '`': r'\`{}',
    '±': r'$\pm$',
    '−': '$-$',
    '×': r'$\times$',
    'Δ': r'$\Delta$',
    '↑': r'$\uparrow$',
    '↓': r'$\downarrow$',
    '≥': r'$\geq$',
    '≤': r'$\leq$',
    '†': r'$^{\dagger}$',
    '–': '--',
    '—': '---',
    '…': r'\dots{}',
    '‘': '`',
    '’': "'",
    '“': '``',
    '”': "''",
    **{raised: f'$^{{{plain}}}$' for raised, plain in zip('⁰¹²³⁴⁵⁶⁷⁸⁹⁻', '0123456789-', strict=True)},
    '½': r'$\frac{1}{2}$',
    '°': r'$^{\circ}$',
    '·': r'$\cdot$',
    'µ': r'$\mu$',
    'μ': r'$\mu$',
    '[': '{[}',
    ']': '{]}',  # after the end of a line a bare one would open an option
}


def to_latex(table: Table) -> str:
    """A table environment that compiles with pdflatex and the package booktabs alone.

    The best figures are bold; note, failures and sources stand below, figures naming their sources by number.
    Letters outside Latin-1 lose their accents, or become their code point, as pdflatex knows no others by default.
    """
    headings = ['backbone', 'method']
    for column in table.columns:
        # A heading is wider than its figures: 'box AP, 1x' takes two lines.
        headings += [rf'\shortstack[r]{{{latex_text(column.heading)}}}'.replace(', ', r'\\'), latex_text('Δ')]
    size, gap = (r'\footnotesize', 3) if len(table.columns) <= 3 else (r'\scriptsize', 2)
    caption = [rf'\caption{{{latex_text(table.title)}}}'] if table.title else []
    caption += [rf'\label{{tab:{re.sub(r"[^A-Za-z0-9.-]", "-", table.name)}}}'] if caption and table.name else []
    lines = [
        r'% Needs \usepackage{booktabs}.',
        r'\begin{table}[htbp]',
        r'\centering',
        *caption,
        r'\smallskip',
        size,
        rf'\setlength{{\tabcolsep}}{{{gap}pt}}',
        rf'\begin{{tabular}}{{@{{}}ll{"r@{ }r" * len(table.columns)}@{{}}}}',
        r'\toprule',
        ' & '.join(headings) + r' \\',
        *_body(table),
        r'\bottomrule',
        r'\end{tabular}',
        '',
        r'\smallskip',
        r'{\raggedright ' + _notes(table) + r'\par}',
        r'\end{table}',
    ]
    return '\n'.join(lines) + '\n'


def _body(table: Table) -> list[str]:
    lines = []
    for i, row in enumerate(table.rows):
        first = i in table.firsts
        line = [latex_text(row.arch) if first else '', latex_text(row.label)]
        for cell, column in zip(row.cells, table.columns, strict=True):
            line += [_value(cell, column, table), latex_text(delta_text(cell, column))]
        lines += [r'\midrule'] * first + [' & '.join(line) + r' \\']
    return lines


def _value(cell: Cell, column: Column, table: Table) -> str:
    text = latex_text(value_text(cell, column))
    if cell.best:
        # Mathematics does not follow \textbf.
        text = rf'\textbf{{{text}}}'.replace(r'$\pm$', r'\boldmath$\pm$')
    marks = ','.join(map(str, source_marks(cell, table)))
    return rf'{text}\,{{\tiny {{[}}{marks}{{]}}}}' if marks else text


def _notes(table: Table) -> str:
    parts = [latex_text(table.note)]
    if table.failures:
        parts.append('Failed: ' + latex_text('; '.join(table.failures)) + '.')
    if table.sources:
        listed = '; '.join(f'[{number}] {source}' for number, source in enumerate(table.sources, 1))
        parts.append('Sources: ' + latex_text(listed) + '.')
    return '\n'.join(parts)


def latex_text(text: str) -> str:
    """``text`` as LaTeX source that prints it."""
    # Hyphens in a row would join into a dash.
    text = unicodedata.normalize('NFC', ' '.join(text.split()).replace('\0', '\ufffd'))
    text = re.sub('-(?=-)', '-\0', text)
    return ''.join('{}' if character == '\0' else _character(character) for character in text)


def _character(character: str) -> str:
    if character in ESCAPES:
        return ESCAPES[character]
    if ' ' <= character <= '~' or 'À' <= character <= 'ÿ' and character not in 'ÐðÞþ÷':
        return character
    # Accents may be lost, nothing else: a fraction or a raised digit would become another number.
    plain = ''.join(c for c in unicodedata.normalize('NFD', character) if ' ' < c < '\x7f')
    return ''.join(ESCAPES.get(c, c) for c in plain) or f'U+{ord(character):04X}'
