"""What can be said of the report without a browser."""

import base64
import collections
import hashlib
import html.parser
import re
from pathlib import Path

import pytest

from spark_bench.errors import InputError
from spark_bench.records import write
from spark_bench.report.page import write_report
from spark_bench.suites.definition import specs_of
from spark_bench.tables import Column, TableSpec


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and whether every element is closed in order."""

    EMPTY = frozenset(('meta', 'link', 'img', 'br', 'hr'))

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_file_needs_nothing_else_and_its_policy_allows_its_one_script_alone(report):
    text = report.read_text()
    page = Page(text)
    assert page.open == []
    links = [
        value
        for _, attributes in page.elements
        for key, value in attributes.items()
        if key in ('src', 'href', 'xlink:href', 'srcset', 'data', 'action')
    ]
    assert len(links) > 50 and all(link.startswith(('data:', '#')) for link in links)
    assert '@import' not in text and re.findall(r'url\((?!#)', text) == []
    assert [tag for tag, _ in page.elements if tag in ('script', 'iframe', 'object', 'embed')] == ['script']
    (script,) = re.findall(r'<script>(.*?)</script>', text, re.DOTALL)
    policy = next(a['content'] for _, a in page.elements if a.get('http-equiv') == 'Content-Security-Policy')
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}';" in policy and policy.startswith("default-src 'none';")
    assert not re.search(r'\b(fetch|XMLHttpRequest|import|eval|innerHTML)\b', script)
    assert not any(key.startswith('on') for _, attributes in page.elements for key in attributes)


def test_identifiers_are_unique_and_every_link_has_its_target(report):
    page = Page(report.read_text())
    names = collections.Counter(a['id'] for _, a in page.elements if 'id' in a)
    assert max(names.values()) == 1
    targets = [a[key][1:] for _, a in page.elements for key in ('href', 'xlink:href') if a.get(key, '').startswith('#')]
    assert targets and set(targets) <= set(names)
    assert 'record-measured-demo-detection-convnext_atto-spark-0' in targets
    assert 'record-measured-demo-pretrain-convnext_atto-spark-0' in targets  # the weights' origin


def test_tables_and_images_can_be_read_aloud(report, demo_runs):
    page = Page(report.read_text())
    tags = collections.Counter(tag for tag, _ in page.elements)
    assert tags['caption'] == tags['table'] == 3
    assert [a.get('scope') for tag, a in page.elements if tag == 'th'].count('row') == 5
    assert all(a.get('scope') for tag, a in page.elements if tag == 'th')
    assert all(a.get('alt') for tag, a in page.elements if tag == 'img')
    assert all(a.get('aria-label') for tag, a in page.elements if tag == 'svg')
    # Gains, cost, transfer, three losses; beside each of the 14 records the curve of its loss.
    assert tags['svg'] == 6 + len(demo_runs) and tags['figure'] == 6


def test_the_demo_says_that_it_is_not_the_papers_result_and_shows_where_figures_come_from(report, demo_runs):
    text = report.read_text()
    assert 'It does not show the paper’s result: with one seed' in text
    for record in demo_runs:
        assert text.count('/'.join(map(str, record.identity)) + '.json') == 1
    assert 'f' * 40 in text and 'torch 2.12.1' in text and 'a processor' in text and '61.5 s' in text


def test_another_suite_carries_no_demo_note_and_one_record_is_enough(tmp_path, make_record):
    write(make_record(suite='ablation', curves={}), tmp_path / 'results')
    text = write_report(tmp_path / 'results', 'ablation', tmp_path / 'report.html', tmp_path).read_text()
    assert 'paper’s result' not in text and '12.5' in text
    assert 'No pretraining in this suite yet.' in text and 'left no predictions' not in text
    assert 'the folder of the images is no longer there (data).' in text


def test_text_from_a_record_cannot_become_markup(tmp_path, make_record):
    hostile = '<script>alert(1)</script>"$title'
    record = make_record(config=hostile, artifacts={'predictions': hostile})
    write(record, tmp_path / 'results')
    page = Page(write_report(tmp_path / 'results', 'demo', tmp_path / 'report.html', tmp_path).read_text())
    assert [tag for tag, _ in page.elements].count('script') == 1


def test_the_same_records_give_the_same_report_and_an_older_one_is_replaced(report, tmp_path):
    before = report.read_bytes()
    report.write_text(before.decode().replace('<main', '<!-- older --><main'))
    assert report.read_bytes() != before
    write_report(tmp_path / 'results', 'demo', report, tmp_path)
    assert report.read_bytes() == before
    assert [path.name for path in report.parent.iterdir()] == ['report.html']


def test_without_records_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match='spark-bench demo'):
        write_report(tmp_path / 'results', 'demo', tmp_path / 'report.html', tmp_path)
    assert list(tmp_path.iterdir()) == []


def stored(records, folder, suite, **options):
    """The text of the report on ``records``, and its page."""
    for record in records:
        write(record, folder / 'results')
    text = write_report(folder / 'results', suite, folder / 'report.html', folder, **options).read_text()
    return text, Page(text)


def part_of(text, identifier):
    """The text between the tag with that identifier and the end of its list."""
    return re.search(rf'<dl id="{re.escape(identifier)}">(.*?)</dl>', text, re.DOTALL)[1]


def test_each_value_links_to_its_records_and_each_record_shows_what_it_came_from(benchmark_runs, tmp_path):
    text, page = stored(benchmark_runs, tmp_path, 'benchmark')
    names = {a['id'] for _, a in page.elements if 'id' in a}
    links = {a['href'][1:] for tag, a in page.elements if tag == 'a'}
    assert links <= names
    for record in benchmark_runs:
        identifier = '-'.join(['record', *map(str, record.identity)])
        cell = '-'.join(['cell', *map(str, record.identity[:-1])])
        assert identifier in names
        assert record.task == 'pretrain' or {identifier, cell} & links
    measured = part_of(text, 'record-measured-benchmark-detection-convnext_base-spark-2')
    for words in (
        'box_ap 40.85, mask_ap –',
        'work_dirs/demo/config.py',
        'ab12' * 16,
        'embedded-v1',
        'gpus 8',
        'spark.safetensors',
        'its pretraining',
        'f' * 40,
        'a processor',
        '10800.0 s',
        'software-1',
        'curve of loss',
        '1 at 1, 0.03333 at 30',
    ):
        assert words in measured, words
    assert 'torch 2.12.1' in part_of(text, 'software-1')
    task = 'classification-convnext_small'
    assert 'somebody/README (✓ read in this source)' in part_of(text, f'record-published-benchmark-{task}-scratch-0')
    unread = part_of(text, f'record-published-benchmark-{task}-no_sparse-0')
    assert 'a paper († transcribed, not checked against this source: no claim)' in unread


def test_a_figure_that_is_not_verified_carries_its_dagger_in_table_figures_and_record(benchmark_runs, tmp_path):
    text, page = stored(benchmark_runs, tmp_path, 'benchmark')
    words = re.sub(r'<[^>]+>', '', re.sub(r'<(style|script)>.*?</\1>', '', text, flags=re.DOTALL))
    spoken = ' '.join(attributes['aria-label'] for _, attributes in page.elements if 'aria-label' in attributes)
    for shown in (words, spoken):
        assert re.findall(r'\b83\.2(.)', shown).count('†') == len(re.findall(r'\b83\.2', shown)) > 0
        assert '83.1' in shown and '83.1†' not in shown
    assert len(re.findall(r'\b83\.2†', words)) == 3  # in the table, the record's line, and the record
    for figure in re.findall(r'<figure>.*?</figure>', text, re.DOTALL)[:2]:  # scaling and gains
        assert '†' in figure.partition('<figcaption>')[0] and 'not checked against its source' in figure


def test_failed_runs_are_named(benchmark_runs, tmp_path):
    spec = TableSpec('t', 'A title', (Column('classification', 'top1', 'top-1'),))
    failed = [('classification', 'convnext_base', 'no_sparse', 0, 'out of memory')]
    text, _ = stored(benchmark_runs, tmp_path, 'benchmark', specs=[spec], failed=failed)
    assert '<h3>A title</h3>' in text and 'seed 0: out of memory' in text


@pytest.mark.parametrize('suite', ['ablation', 'scaling', 'resnet50', 'transformers'])
def test_the_published_tables_of_the_paper_make_reports(suite, tmp_path):
    results = Path(__file__).parents[2] / 'results'
    text = write_report(results, suite, tmp_path / 'report.html', tmp_path, specs_of(suite)).read_text()
    page = Page(text)
    assert page.open == []
    names = collections.Counter(a['id'] for _, a in page.elements if 'id' in a)
    assert max(names.values()) == 1
    assert {a['href'][1:] for tag, a in page.elements if tag == 'a'} <= set(names)
    assert [tag for tag, _ in page.elements].count('figure') >= 1


def test_a_record_adds_little_to_the_file(make_benchmark, tmp_path):
    methods = ('scratch', 'spark', 'no_sparse')
    sizes = {}
    for seeds in (1, 5):
        records = make_benchmark(('resnet50',), methods, seeds, points=600, suite=f'seeds{seeds}')
        text, _ = stored(records, tmp_path, f'seeds{seeds}')
        sizes[len(records)] = len(text)
    (few, small), (many, large) = sorted(sizes.items())
    # Figures have most of it until their points are rationed; 500 records then stay below four million characters.
    assert (large - small) / (many - few) < 8000
