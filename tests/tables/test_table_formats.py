"""A table in each format, read by something else: pdflatex, a Markdown parser, an HTML parser, a CSV reader."""

import csv
import dataclasses
import html.parser
import io
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spark_bench import commands
from spark_bench.records import write
from spark_bench.suites.definition import specs_of
from spark_bench.tables import Column, TableSpec, build_table, to_csv, to_grid, to_html, to_latex, to_markdown
from spark_bench.tables.grid import Grid
from spark_bench.tables.latex import ESCAPES, latex_text

ROOT = Path(__file__).resolve().parents[2]
# What a label, a title, a source or a reason may hold, and each format must print as it stands.
NASTY = (
    r'50 % of a_b & c#d $x$ {y} ~z ^w \alpha \\ "q" <b>bold</b> [1] *star* `code` |bar| -- --- &amp; _under_ '
    '’ … × ± é ß'
)
STRANGE = 'Ω ł 日本 \u200b'  # letters that pdflatex does not know by default
DOCUMENT = r'\documentclass{article}\usepackage{booktabs}\begin{document}%s\end{document}'


@pytest.fixture
def nasty(make_record):
    """A table whose every free text is NASTY, with a failed, a missing, an unverified and a best cell."""
    columns = (Column('classification', 'top1', NASTY), Column('detection', 'box_ap', 'box AP'))
    records = [
        make_record('classification', method, seed, metrics={'top1': value + seed / 10})
        for method, value in (('scratch', 70.0), ('_under_', 80.0), ('a--b.c', 60.0))
        for seed in range(3)
    ]
    records.append(
        make_record('classification', 'spark', metrics={'top1': 99.5}, origin='published', source=NASTY, verified=False)
    )
    failed = [('detection', 'convnext_atto', 'scratch', 0, NASTY)]
    return build_table(records, TableSpec('nasty_1', NASTY, columns), failed)


def compiled(tmp_path, *bodies):
    """The log of pdflatex for a document of ``bodies``; fails the test unless it compiles."""
    if shutil.which('pdflatex') is None:
        pytest.skip('pdflatex is not installed: apt-get install texlive-latex-base texlive-latex-recommended')
    (tmp_path / 'tables.tex').write_text(DOCUMENT % '\n'.join(('', *bodies)), encoding='utf-8')
    command = ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'tables.tex']
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    log = (tmp_path / 'tables.log').read_text(encoding='latin1')
    assert run.returncode == 0, [line for line in log.splitlines() if line.startswith('!')]
    return log


def test_the_papers_tables_compile_and_fit_the_page(tmp_path, capsys):
    texts = []
    for suite in ('ablation', 'scaling', 'resnet50', 'transformers'):
        command = ['table', '--suite', suite, '--results', str(ROOT / 'results'), '--format', 'latex']
        assert commands.main(command) == 0
        texts.append(capsys.readouterr().out)
    assert sum(text.count(r'\begin{tabular}') for text in texts) == 6
    log = compiled(tmp_path, *texts)
    assert 'Overfull' not in log and 'Missing character' not in log


def test_a_latex_table_of_any_text_compiles(tmp_path, nasty):
    log = compiled(
        tmp_path,
        to_latex(nasty),
        latex_text(STRANGE),
        latex_text(''.join(ESCAPES)),
        latex_text(''.join(map(chr, range(32, 0x250)))),
    )
    assert 'Missing character' not in log


def test_what_latex_prints_is_what_the_table_says(tmp_path, nasty):
    compiled(tmp_path, to_latex(nasty))
    if shutil.which('pdftotext') is None:
        pytest.skip('pdftotext is not installed: apt-get install poppler-utils')
    run = subprocess.run(['pdftotext', '-layout', 'tables.pdf', '-'], cwd=tmp_path, capture_output=True, text=True)
    words = ' '.join(run.stdout.split())
    for word in ('50 %', 'c#d', '$x$', '{y}', r'\alpha \\', '<b>bold</b> [1] *star* `code` |bar| -- ---', 'ß'):
        assert word in words, word


class Fragment(html.parser.HTMLParser):
    """Elements with attributes, texts of table cells, and whether every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.rows, self.text = [], [], [], ''
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)
        if tag == 'tr':
            self.rows.append([])
        if tag in ('td', 'th'):
            self.rows[-1].append('')

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {'td', 'th'} & set(self.open):
            self.rows[-1][-1] += data


def test_the_html_is_well_formed_and_shows_any_text_as_it_stands(nasty):
    page = Fragment(to_html(nasty, lambda row, column: f'#{NASTY}'))
    assert page.open == []
    assert {tag for tag, _ in page.elements} <= {
        'table',
        'caption',
        'span',
        'strong',
        'thead',
        'tbody',
        'tr',
        'th',
        'td',
        'a',
        'sup',
        'p',
        'ul',
        'ol',
        'li',
    }
    assert page.text.count(NASTY) >= 4  # title, heading, reason, source
    assert [row[1] for row in page.rows] == ['method', 'scratch', '_under_', 'a--b.c', 'spark (published) †']
    assert all(
        attributes['href'] == f'#{NASTY}'
        for tag, attributes in page.elements
        if tag == 'a' and 'source' not in attributes['href']
    )


def test_every_html_cell_can_be_sorted_and_every_row_filtered(nasty):
    page = Fragment(to_html(nasty))
    heads = [attributes for tag, attributes in page.elements if tag == 'th' and attributes['scope'] == 'col']
    assert [head['data-sort-type'] for head in heads] == ['text', 'text', *['number'] * 4]
    cells = [
        attributes for tag, attributes in page.elements if tag == 'td' or tag == 'th' and attributes['scope'] == 'row'
    ]
    assert len(cells) == len(nasty.rows) * len(heads)
    keys = [[cell['data-sort'] for cell in cells[i : i + 6]] for i in range(0, len(cells), 6)]
    for row, line in zip(nasty.rows, keys, strict=True):
        values = [None if key == '' else float(key) for key in line[2:]]
        assert values == [number for cell in row.cells for number in (cell.value, cell.delta)]
    rows = [attributes for tag, attributes in page.elements if tag == 'tr' and 'data-arch' in attributes]
    assert [(row['data-method'], row['data-origin'], row['data-status']) for row in rows] == [
        ('scratch', 'measured', 'failed'),
        ('_under_', 'measured', 'missing'),
        ('a--b.c', 'measured', 'missing'),
        ('spark', 'published', 'missing'),
    ]
    classes = [cell.get('class', '').split() for cell in cells]
    assert [sum(name in c for c in classes) for name in ('best', 'failed', 'missing', 'unverified')] == [1, 1, 3, 1]


def test_two_fragments_of_one_page_share_no_identifier_and_links_have_their_targets(nasty):
    page = Fragment(to_html(nasty, prefix='a') + to_html(nasty, prefix='b'))
    names = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
    assert len(names) == len(set(names)) == 4
    targets = [attributes['href'] for tag, attributes in page.elements if tag == 'a']
    assert len(targets) == 2 and all(target.removeprefix('#') in names for target in targets)


def test_markdown_is_one_table_that_shows_any_text_as_it_stands(nasty):
    markdown_it = pytest.importorskip('markdown_it')
    rendered = markdown_it.MarkdownIt('commonmark').enable('table').render(to_markdown(nasty))
    page = Fragment(rendered)
    assert page.open == [] and [len(row) for row in page.rows] == [6] * (1 + len(nasty.rows))
    assert page.rows[0][2] == f'{NASTY} ↑'
    assert [row[1] for row in page.rows[1:]] == ['scratch', '_under_', 'a--b.c', 'spark (published) †']
    tags = [tag for tag, _ in page.elements]
    assert tags.count('strong') == 2 and not {'em', 'code', 'a', 'b'} & set(tags)  # title and best figure
    assert page.text.count(NASTY) == 4


def test_the_terminal_reads_no_text_as_markup(nasty):
    import rich.console

    console = rich.console.Console(file=io.StringIO(), width=400)
    console.print(to_grid(nasty).to_rich())
    assert '<b>bold</b> [1] *star*' in console.file.getvalue() and '_under_' in console.file.getvalue()


def test_several_tables_make_one_csv(nasty):
    lines = list(csv.DictReader(io.StringIO(to_csv(nasty, nasty))))
    assert len(lines) == 2 * len(nasty.cells) and {line['table'] for line in lines} == {'nasty_1'}
    [failed] = [line for line in lines[: len(nasty.cells)] if line['status'] == 'failed']
    assert failed['why'] == f'seed 0: {NASTY}' and failed['value'] == ''
    assert {line['source'] for line in lines if line['origin'] == 'published' and line['value']} == {NASTY}
    [best] = [line for line in lines[: len(nasty.cells)] if line['best'] == 'true']
    assert (best['method'], best['delta_beyond_noise']) == ('_under_', 'true')


@pytest.mark.parametrize('source', ['=HYPERLINK("http://a.b","c")', '+1+1', '-1+1', '@SUM(A1)'])
def test_a_source_that_a_spreadsheet_would_run_as_a_formula_becomes_text(make_published, source):
    record = make_published('demo', 'classification', 'resnet50', 'spark', {'top1': 50.0}, source=source)
    table = build_table([record], TableSpec('one', '', [Column('classification', 'top1', 'top-1')]))
    [line] = csv.DictReader(io.StringIO(to_csv(table)))
    assert line['source'] == f"'{source}" and line['value'] == '50.0'
    assert source.replace('"', '&quot;') in to_html(table)


@pytest.fixture
def results(tmp_path, make_record):
    for method, value in (('scratch', 61.0), ('spark', 72.5)):
        write(make_record('classification', method, metrics={'top1': value}), tmp_path / 'results')
    return tmp_path / 'results'


@pytest.mark.parametrize(
    ('name', 'suffix', 'part'),
    [
        ('terminal', '.txt', '72.5   +11.5'),
        ('markdown', '.md', '| 72.5 | +11.5 |'),
        ('csv', '.csv', ',72.5,,11.5,demo,'),
        ('latex', '.tex', '72.5 & +11.5'),
        ('html', '.html', 'data-sort="72.5"'),
    ],
)
def test_a_format_goes_to_standard_output_or_to_a_file_and_nowhere_else(results, capsys, name, suffix, part):
    assert commands.main(['table', '--results', str(results), '--format', name]) == 0
    printed = capsys.readouterr().out
    assert part in printed
    output = results.parent / f'out{suffix}'
    assert commands.main(['table', '--results', str(results), '--output', str(output)]) == 0
    assert output.read_text(encoding='utf-8') == printed
    assert capsys.readouterr().out == f'written: {output}\n'
    assert not (results / 'tables').exists()


def test_an_output_whose_format_is_unknown_is_refused_before_anything_is_written(results, capsys):
    assert commands.main(['table', '--results', str(results), '--output', str(results / 'table.docx')]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'table.docx' in error and '--format' in error and 'latex' in error
    assert not (results / 'table.docx').exists()


def test_a_suite_of_several_tables_writes_each_by_its_name(tmp_path, capsys):
    shutil.copytree(ROOT / 'results' / 'published' / 'scaling', tmp_path / 'published' / 'scaling')
    assert commands.main(['table', '--suite', 'scaling', '--results', str(tmp_path)]) == 0
    names = sorted(path.name for path in (tmp_path / 'tables').iterdir())
    assert names == ['scaling.csv', 'scaling.md', 'scaling_384.csv', 'scaling_384.md']
    printed = capsys.readouterr().out
    assert all(spec.title in ' '.join(printed.split()) for spec in specs_of('scaling'))
    assert '85.5' in (tmp_path / 'tables' / 'scaling_384.md').read_text()


def test_what_no_table_of_the_suite_shows_is_named(tmp_path, make_record, capsys):
    write(make_record('classification', 'spark', suite='ablation', arch='resnet18', metrics={'top1': 1.0}), tmp_path)
    assert commands.main(['table', '--suite', 'ablation', '--results', str(tmp_path), '--format', 'csv']) == 0
    assert 'in no table here: classification/resnet18/spark' in capsys.readouterr().err


def test_a_suite_without_tables_of_its_own_shows_the_variants_of_its_tasks(tmp_path, make_record, capsys):
    for task in ('detection_2x', 'detection'):
        write(make_record(task, suite='mine', metrics={'box_ap': 40.0, 'mask_ap': 30.0}), tmp_path)
    assert commands.main(['table', '--suite', 'mine', '--results', str(tmp_path), '--format', 'markdown']) == 0
    heading = capsys.readouterr().out.splitlines()[0]
    assert [text.strip(' ↑') for text in heading.split('|')[3:-1:2]] == [
        'box AP',
        'mask AP',
        'box AP, 2x',
        'mask AP, 2x',
    ]


def test_the_script_gives_what_the_command_gives(results, capsys):
    arguments = ['--results', str(results), '--format', 'markdown']
    command = [sys.executable, str(ROOT / 'tools' / 'aggregate.py'), *arguments]
    script = subprocess.run(command, capture_output=True, text=True, timeout=120, env={'PYTHONPATH': str(ROOT)})
    assert commands.main(['table', *arguments]) == 0
    assert script.stdout == capsys.readouterr().out and script.returncode == 0, script.stderr


def test_a_file_holds_what_rich_draws_however_wide_the_letters(nasty):
    import rich.console

    rows = [[(('日本', ''),), ((STRANGE, 'bold'), (' [1]', 'dim'))], [(('e\u0301', ''),), (('1.0', ''),)]]
    letters = Grid('', ['backbone', 'Ω'], [False, True], rows, [], frozenset({1}))
    for grid in (dataclasses.replace(to_grid(nasty), title='', notes=[]), letters):
        console = rich.console.Console(file=io.StringIO(), width=2000)
        console.print(grid.to_rich())
        drawn = [line.rstrip() for line in console.file.getvalue().splitlines()]
        assert grid.to_plain().rstrip('\n').splitlines() == '\n'.join(drawn).rstrip('\n').splitlines()


def test_a_terminal_gets_styles_and_lines_that_fit(results, make_record):
    for seed in range(1, 3):
        write(make_record('classification', 'spark', seed, metrics={'top1': 72.5 + seed / 10}), results)
        write(make_record('classification', 'scratch', seed, metrics={'top1': 61.0 + seed / 10}), results)
    ours, theirs = pty.openpty()
    command = [sys.executable, '-m', 'spark_bench', 'table', '--results', str(results), '--format', 'terminal']
    environment = {'PATH': os.environ['PATH'], 'TERM': 'xterm', 'COLUMNS': '90', 'PYTHONPATH': str(ROOT)}
    run = subprocess.run(command, stdout=theirs, stdin=subprocess.DEVNULL, env=environment, timeout=60)
    os.close(theirs)
    printed = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert run.returncode == 0
    assert '\x1b[1m72.6 ±' in printed and '\x1b[32m+11.5' in printed
    assert max(len(re.sub(r'\x1b\[[0-9;]*m', '', line)) for line in printed.splitlines()) <= 90


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize('width', [10, 20, 40, 60, 80, 100, 140])
@pytest.mark.parametrize('command', ['table', 'compare'])
def test_no_terminal_is_so_narrow_that_a_figure_or_a_name_is_cut(tmp_path, make_benchmark, monkeypatch, width, command):
    for record in make_benchmark(('convnext_small', 'convnext_base'), ('scratch', 'spark')):
        write(record, tmp_path)
    words = ['table', '--suite', 'benchmark', '--results'] if command == 'table' else ['compare', str(tmp_path)]
    words += [str(tmp_path), *(['--format', 'terminal'] if command == 'table' else [])]
    monkeypatch.setenv('COLUMNS', str(width))
    shown = Terminal()
    monkeypatch.setattr(sys, 'stdout', shown)
    assert commands.main(words) == 0
    text = re.sub(r'\x1b\[[0-9;]*m', '', shown.getvalue())
    figures = sorted(re.findall(r'\d+\.\d+ ± \d+\.\d+ \(n=3\)', text))
    assert len(figures) == 12 * (1 if command == 'table' else 2)
    assert figures[0] == '32.0 ± 0.0 (n=3)' and figures[-1] == '81.6 ± 0.1 (n=3)' and '…' not in text
    letters = ''.join(text.split())
    for name in ('spark', 'classification', 'mask_ap') if command == 'compare' else ('spark', 'maskAP'):
        assert name in letters or width < 140
    if width >= 80 and command == 'table':
        assert max(map(len, text.splitlines())) <= width
