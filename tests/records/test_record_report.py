"""The report in a real browser, and what can be said of its text without one."""

import collections
import html.parser
import json
import re
import shutil
import subprocess

import pytest

from spark_bench.errors import InputError
from spark_bench.records import write
from spark_bench.records.report import write_report
from spark_bench.records.table import METHODS

# Runs in the page under test and tells the page around it what it sees.
PROBE = """<script>
const problems = [];
addEventListener('error', event => problems.push(String(event.message || event.target.outerHTML)), true);
addEventListener('securitypolicyviolation', event => problems.push(event.violatedDirective));
addEventListener('load', () => {
  const loaded = performance.getEntriesByType('resource').map(entry => entry.name);
  const style = getComputedStyle(document.body);
  parent.postMessage(JSON.stringify({
    problems, loaded: loaded.filter(name => !name.startsWith('data:')),
    pictures: [...document.images].map(image => image.naturalWidth),
    page: document.documentElement.scrollWidth, window: innerWidth,
    colours: [style.color, style.backgroundColor], title: document.title,
    rows: document.querySelectorAll('#results tbody tr:not(.group)').length}), '*');
});
</script>"""
FRAME = """<!DOCTYPE html><meta charset="utf-8"><pre id="answer"></pre>
<iframe src="probed.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>
addEventListener('message', event => {{ document.getElementById('answer').textContent = event.data; }});
</script>
"""


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


@pytest.fixture
def report(demo_runs, tmp_path):
    for record in demo_runs:
        write(record, tmp_path / 'results')
    return write_report(tmp_path / 'results', 'demo', tmp_path / 'out' / 'report.html', tmp_path)


def ask_browser(report, width, *flags):
    """What the probe finds in `report` at a width in CSS pixels."""
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if browser is None:
        pytest.skip('Chromium is not installed: apt-get update && apt-get install -y chromium')
    text = report.read_text(encoding='utf-8')
    # The page's own policy allows no script at all: the copy allows the probe, and nothing else that is new.
    probed = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';", 1)
    probed = probed.replace('<title>', PROBE + '<title>', 1)
    assert probed.count(PROBE) == 1 and "script-src 'unsafe-inline'" in probed
    (report.parent / 'probed.html').write_text(probed, encoding='utf-8')
    frame = report.parent / 'frame.html'
    frame.write_text(FRAME.format(width=width), encoding='utf-8')
    profile = report.parent / 'profile'
    command = [
        browser, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
        '--disable-background-networking', '--disable-component-update', '--disable-sync',
        '--disable-dev-shm-usage', f'--user-data-dir={profile}', '--window-size=1400,1000',
        '--virtual-time-budget=10000', *flags, '--dump-dom', frame.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    answer = re.search(r'<pre id="answer">(.+?)</pre>', run.stdout, re.DOTALL)
    assert answer, f'the page did not answer: {run.stderr[-500:]}'
    return json.loads(html.unescape(answer[1]))


@pytest.mark.parametrize('width', [390, 1200])
def test_a_browser_shows_every_picture_without_error_request_or_sideways_scrolling(report, width):
    seen = ask_browser(report, width)
    assert seen['window'] == width and seen['title'] == 'SparK benchmark: demo'
    assert seen['problems'] == [] and seen['loaded'] == []
    assert len(seen['pictures']) == 2 * 6 + 4 * 6 and min(seen['pictures']) > 0
    assert seen['page'] <= width
    assert seen['rows'] == len(METHODS)


def test_the_page_follows_a_dark_setting(report):
    def brightness(colour):
        return sum(map(int, re.findall(r'\d+', colour)[:3]))

    text, ground = map(brightness, ask_browser(report, 1200)['colours'])
    dark_text, dark_ground = map(
        brightness, ask_browser(report, 1200, '--blink-settings=preferredColorScheme=0')['colours']
    )
    assert ground - text > 500 and dark_text - dark_ground > 500


def test_a_broken_picture_would_be_noticed(report):
    # Guards the probe itself: were it blind, the test above would pass on anything.
    text = report.read_text()
    broken = text.replace('data:image/jpeg;base64,/9j/', 'data:image/jpeg;base64,AAAA', 1)
    outside = broken.replace('<main>', '<main><img src="missing.png" alt=""><p style="width:2000px">wide</p>')
    assert broken != text and outside != broken
    report.write_text(outside)
    seen = ask_browser(report, 390)
    assert seen['pictures'].count(0) == 2 and seen['problems'] and seen['page'] > 390


def test_the_file_needs_nothing_else_and_no_script(report):
    text = report.read_text()
    page = Page(text)
    assert page.open == []
    links = [value for _, attributes in page.elements for key, value in attributes.items()
             if key in ('src', 'href', 'xlink:href', 'srcset', 'data', 'action')]  # fmt: skip
    assert len(links) > 50 and all(link.startswith(('data:', '#')) for link in links)
    assert '@import' not in text and re.findall(r'url\((?!#)', text) == []
    assert not any(tag in ('script', 'iframe', 'object', 'embed') for tag, _ in page.elements)
    assert not any(key.startswith('on') for _, attributes in page.elements for key in attributes)


def test_identifiers_are_unique_and_every_link_has_its_target(report):
    page = Page(report.read_text())
    names = collections.Counter(a['id'] for _, a in page.elements if 'id' in a)
    assert max(names.values()) == 1
    targets = [a[key][1:] for _, a in page.elements for key in ('href', 'xlink:href') if a.get(key, '').startswith('#')]
    assert targets and set(targets) <= set(names)
    assert 'record-measured-demo-detection-convnext_atto-spark-0' in targets
    assert 'record-measured-demo-pretrain-convnext_atto-spark-0' in targets  # the weights' origin


def test_tables_and_pictures_can_be_read_aloud(report):
    page = Page(report.read_text())
    tags = collections.Counter(tag for tag, _ in page.elements)
    assert tags['caption'] == tags['table'] == 3
    assert all(a.get('scope') for tag, a in page.elements if tag == 'th')
    assert all(a.get('alt') for tag, a in page.elements if tag == 'img')
    assert all(a.get('aria-label') for tag, a in page.elements if tag == 'svg') and tags['svg'] == 4


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
    assert 'the folder of the pictures is no longer there (data).' in text


def test_text_from_a_record_cannot_become_markup(tmp_path, make_record):
    hostile = '<script>alert(1)</script>"$title'
    record = make_record(config=hostile, artifacts={'predictions': hostile})
    write(record, tmp_path / 'results')
    page = Page(write_report(tmp_path / 'results', 'demo', tmp_path / 'report.html', tmp_path).read_text())
    assert not any(tag == 'script' for tag, _ in page.elements)


def test_the_same_records_give_the_same_report_and_an_older_one_is_replaced(report, tmp_path):
    before = report.read_bytes()
    report.write_text('older')
    write_report(tmp_path / 'results', 'demo', report, tmp_path)
    assert report.read_bytes() == before
    assert [path.name for path in report.parent.iterdir()] == ['report.html']


def test_without_records_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match='spark-bench demo'):
        write_report(tmp_path / 'results', 'demo', tmp_path / 'report.html', tmp_path)
    assert list(tmp_path.iterdir()) == []
