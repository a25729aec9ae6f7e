"""The report in a real browser: what it shows, and what its script does, under the page's own policy."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess

import pytest

from spark_bench.records import write
from spark_bench.report.page import write_report
from spark_bench.tables.build import METHODS

# Runs in the page under test and tells the page around it what it sees.
PROBE = """
const problems = [];
addEventListener('error', event => problems.push(String(event.message || event.target.outerHTML)), true);
addEventListener('unhandledrejection', event => problems.push(String(event.reason)));
addEventListener('securitypolicyviolation', event => problems.push(event.violatedDirective));
const settle = () => new Promise(done => setTimeout(done, 60));
const act = async () => { ACTION };
addEventListener('load', async () => {
  await settle();
  let answer = null;
  try { answer = await act(); } catch (error) { problems.push(String(error)); }
  const loaded = performance.getEntriesByType('resource').map(entry => entry.name);
  const style = getComputedStyle(document.body);
  parent.postMessage(JSON.stringify({
    answer, problems, loaded: loaded.filter(name => !name.startsWith('data:')),
    images: [...document.images].map(image => image.naturalWidth),
    page: document.documentElement.scrollWidth, window: innerWidth,
    colours: [style.color, style.backgroundColor], title: document.title,
    rows: document.querySelectorAll('table.results tbody tr').length}), '*');
});
"""
FRAME = """<!DOCTYPE html><meta charset="utf-8"><pre id="answer"></pre>
<iframe src="probed.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>
addEventListener('message', event => {{ document.getElementById('answer').textContent = event.data; }});
</script>
"""
# Reads a page whose scripts are switched off, and follows a link in it.
FRAME_WITHOUT_SCRIPTS = """<!DOCTYPE html><meta charset="utf-8"><pre id="answer"></pre>
<iframe src="report.html" sandbox="allow-same-origin" style="width:390px;height:900px;border:0"></iframe>
<script>
const frame = document.querySelector('iframe');
const settle = () => new Promise(done => setTimeout(done, 100));
frame.addEventListener('load', async () => {
  const page = frame.contentDocument;
  const link = page.querySelector('td.number a[href^="#record-"]');
  const target = page.getElementById(link.getAttribute('href').slice(1));
  const seen = {
    controls: page.querySelectorAll('form, button, input').length,
    hidden: page.querySelectorAll('[hidden]').length,
    rows: [...page.querySelectorAll('table.results tbody tr')].filter(row => row.getClientRects().length).length,
    before: target.getClientRects().length,
    page: page.documentElement.scrollWidth,
  };
  frame.contentWindow.location.hash = link.getAttribute('href');
  await settle();
  seen.after = target.checkVisibility({ contentVisibilityAuto: true, visibilityProperty: true });
  seen.open = target.closest('details').open;
  document.getElementById('answer').textContent = JSON.stringify(seen);
}, { once: true });
</script>
"""


def run_browser(page, *flags):
    """What ``page`` writes into its element 'answer'."""
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if browser is None:
        pytest.skip('Chromium is not installed: apt-get update && apt-get install -y chromium')
    command = [
        browser,
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--disable-dev-shm-usage',
        f'--user-data-dir={page.parent / "profile"}',
        '--window-size=1400,1000',
        '--virtual-time-budget=10000',
        *flags,
        '--dump-dom',
        page.as_uri(),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    answer = re.search(r'<pre id="answer">(.+?)</pre>', run.stdout, re.DOTALL)
    assert answer, f'the page did not answer: {run.stderr[-500:]}'
    return json.loads(html.unescape(answer[1]))


def ask_browser(report, width, *flags, action=''):
    """What the probe finds in ``report`` at a width in CSS pixels after ``action``, statements of JavaScript."""
    text = report.read_text(encoding='utf-8')
    probe = PROBE.replace('ACTION', action)
    # The page's own policy stays, with the probe allowed by its hash as the page's script is.
    allowed = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    probed = text.replace("script-src '", f"script-src 'sha256-{allowed}' '", 1)
    probed = probed.replace('<title>', f'<script>{probe}</script><title>', 1)
    assert probed.count(probe) == 1 and probed.count(allowed) == 1
    (report.parent / 'probed.html').write_text(probed, encoding='utf-8')
    frame = report.parent / 'frame.html'
    frame.write_text(FRAME.format(width=width), encoding='utf-8')
    return run_browser(frame, *flags)


@pytest.mark.parametrize('width', [390, 1200])
def test_a_browser_shows_every_image_without_error_request_or_sideways_scrolling(report, width):
    seen = ask_browser(report, width)
    assert seen['window'] == width and seen['title'] == 'SparK benchmark: demo'
    assert seen['problems'] == [] and seen['loaded'] == []
    assert len(seen['images']) == 2 * 6 + 4 * 6 and min(seen['images']) > 0
    assert seen['page'] <= width
    assert seen['rows'] == len(METHODS)


def test_a_benchmark_with_every_record_open_does_not_scroll_sideways_on_a_phone(benchmark_report):
    action = """
      for (const entry of document.querySelectorAll('details')) entry.open = true;
      document.querySelector('th button').click();
      await settle();
      return [...document.querySelectorAll('dl')].filter(list => list.getClientRects().length).length;"""
    seen = ask_browser(benchmark_report, 390, action=action)
    assert seen['problems'] == [] and seen['loaded'] == []
    assert seen['answer'] > 30 and seen['page'] <= 390


@pytest.mark.slow
def test_five_hundred_records_are_a_few_megabytes_and_work_on_a_phone(make_benchmark, tmp_path):
    archs = ('resnet50', 'resnet101', 'resnet152', 'resnet200', 'convnext_small', 'convnext_base', 'convnext_large')
    methods = ('scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic', 'ape', 'loss_on_all', 'half_schedule')
    records = make_benchmark(archs, methods, seeds=4, points=200)
    for record in records:
        write(record, tmp_path / 'results')
    report = write_report(tmp_path / 'results', 'benchmark', tmp_path / 'report.html', tmp_path)
    assert len(records) == 497 and report.stat().st_size < 4_000_000
    action = """
      const search = document.querySelector('#provenance form input');
      search.value = 'detection convnext_large spark';
      search.dispatchEvent(new Event('input', { bubbles: true }));
      return document.querySelector('#provenance output').textContent;"""
    seen = ask_browser(report, 390, action=action)
    assert seen['problems'] == [] and seen['loaded'] == [] and seen['page'] <= 390
    assert seen['answer'] == f'4 of {len(records)} records' and seen['rows'] == len(archs) * len(methods)


def test_the_page_follows_a_dark_setting(report):
    def brightness(colour):
        return sum(map(int, re.findall(r'\d+', colour)[:3]))

    text, ground = map(brightness, ask_browser(report, 1200)['colours'])
    dark_text, dark_ground = map(
        brightness, ask_browser(report, 1200, '--blink-settings=preferredColorScheme=0')['colours']
    )
    assert ground - text > 500 and dark_text - dark_ground > 500


def test_a_broken_image_or_script_would_be_noticed(report):
    # Guards the probe itself: were it blind, the tests above would pass on anything.
    text = report.read_text()
    broken = text.replace('data:image/jpeg;base64,/9j/', 'data:image/jpeg;base64,AAAA', 1)
    outside = broken.replace('<main>', '<main><img src="missing.png" alt=""><p style="width:2000px">wide</p>')
    foreign = outside.replace('</main>', '<script>document.title = "other"</script></main>')
    assert len({text, broken, outside, foreign}) == 4
    report.write_text(foreign)
    seen = ask_browser(report, 390, action='null.nothing')
    assert seen['images'].count(0) == 2 and seen['page'] > 390
    assert seen['title'] == 'SparK benchmark: demo'  # the policy stopped the foreign script
    assert {'script-src-elem', 'img-src'} <= set(seen['problems'])
    assert any('null' in problem for problem in seen['problems'])


def test_headings_sort_the_rows_and_say_so(benchmark_report):
    action = """
      const table = document.querySelector('table.results');
      const headings = [...table.tHead.rows[0].cells];
      const seen = [];
      for (const place of [2, 2, 2, 1, 0]) {
        const button = headings[place].querySelector('button');
        button.focus();
        if (document.activeElement !== button || button.tabIndex !== 0) throw new Error('not for the keyboard');
        button.click();
        seen.push([headings.map(heading => heading.getAttribute('aria-sort')),
          [...table.tBodies[0].rows].map(row => row.cells[place].textContent),
          table.classList.contains('flat')]);
      }
      return seen;"""
    seen = ask_browser(benchmark_report, 1200, action=action)
    assert seen['problems'] == []
    down, up, as_it_was, by_method, by_arch = seen['answer']
    headings = len(down[0])
    assert down[0] == [None, None, 'descending', *[None] * (headings - 3)]
    assert up[0] == [None, None, 'ascending', *[None] * (headings - 3)]
    assert as_it_was[0] == [None] * headings and not as_it_was[2] and down[2]
    assert by_method[0][1] == 'ascending' and by_arch[0][0] == 'ascending' and by_arch[0][1] is None

    def numbers(texts):
        return [float(t.split()[0].rstrip('†')[:4]) for t in texts if t[0] != '–']

    # Those of each row as the docstring of make_benchmark gives them, and the published ones.
    expected = [80.1, 80.6, 81.1, 81.1, 81.6, 83.1, 83.2, 84.1]
    assert numbers(up[1]) == expected and numbers(down[1]) == expected[::-1]
    assert up[1][-1][0] == down[1][-1][0] == '–'  # what is missing comes last both ways
    assert sorted(as_it_was[1]) == sorted(up[1]) and as_it_was[1] not in (up[1], down[1])
    assert by_arch[1] == sorted(by_arch[1])


def test_fields_filter_the_rows_and_come_back(benchmark_report):
    action = """
      const form = document.querySelector('form.filters');
      const table = document.querySelector('table.results');
      const visible = () => [...table.tBodies[0].rows].filter(row => row.getClientRects().length)
        .map(row => [row.dataset.arch, row.dataset.method, row.dataset.origin].join(' '));
      const [search] = form.querySelectorAll('input');
      const [arch, origin] = form.querySelectorAll('select');
      const set = (field, value) => {
        field.value = value;
        field.dispatchEvent(new Event('input', { bubbles: true }));
        return [visible(), form.querySelector('output').textContent];
      };
      const labels = [...form.querySelectorAll('input, select')].map(field => field.labels.length);
      const seen = { labels, all: visible(), text: set(search, 'SPARK measured'), both: set(arch, 'convnext_base') };
      set(search, '');
      set(arch, '');
      seen.published = set(origin, 'published');
      seen.nothing = set(search, 'no such row');
      form.querySelector('button[type=reset]').click();
      await settle();
      seen.back = visible();
      return seen;"""
    seen = ask_browser(benchmark_report, 1200, action=action)
    assert seen['problems'] == []
    answer = seen['answer']
    assert min(answer['labels']) == 1
    assert len(answer['all']) == 9 and answer['back'] == answer['all']
    assert answer['text'] == [['convnext_base spark measured', 'convnext_small spark measured'], '2 of 9 rows']
    assert answer['both'] == [['convnext_base spark measured'], '1 of 9 rows']
    assert answer['published'][0] == [f'convnext_small {m} published' for m in ('scratch', 'spark', 'no_sparse')]
    assert answer['nothing'] == [[], '0 of 9 rows']


def test_links_open_the_records_of_a_cell_even_if_filtered_out(benchmark_report):
    action = """
      const parts = document.getElementById('provenance');
      const search = parts.querySelector('form input');
      const open = () => [...parts.querySelectorAll('details[open] dl')].map(list => list.id);
      search.value = 'resnet';
      search.dispatchEvent(new Event('input', { bubbles: true }));
      const shown = () => [...parts.querySelectorAll('.cell > details')].filter(e => e.getClientRects().length).length;
      const seen = { filtered: shown() };
      const rows = [...document.querySelectorAll('table.results tbody tr')];
      const cell = (arch, method, origin) => rows.find(row => row.dataset.arch === arch
        && row.dataset.method === method && row.dataset.origin === origin).cells[2].querySelector('a');
      cell('convnext_small', 'spark', 'measured').click();
      await settle();
      seen.seeds = open();
      seen.shown = shown();
      seen.inView = Math.abs(parts.querySelector('details[open]').getBoundingClientRect().top) < innerHeight;
      cell('convnext_small', 'no_sparse', 'published').click();
      await settle();
      seen.published = open().filter(id => !seen.seeds.includes(id));
      parts.querySelector('details[open] dl a[href^="#record-measured-benchmark-pretrain"]').click();
      await settle();
      seen.pretraining = open().filter(id => id.includes('pretrain'));
      return seen;"""
    seen = ask_browser(benchmark_report, 1200, action=action)
    assert seen['problems'] == [] and seen['loaded'] == []
    answer, cell = seen['answer'], 'benchmark-classification-convnext_small'
    assert answer['filtered'] == 0 and answer['shown'] > 30 and answer['inView']
    assert answer['seeds'] == [f'record-measured-{cell}-spark-{seed}' for seed in range(3)]
    assert answer['published'] == [f'record-published-{cell}-no_sparse-0']
    assert answer['pretraining'] == ['record-measured-benchmark-pretrain-convnext_small-spark-0']


def test_without_scripts_everything_is_there_and_links_open_records(benchmark_report):
    frame = benchmark_report.parent / 'silent.html'
    frame.write_text(FRAME_WITHOUT_SCRIPTS)
    seen = run_browser(frame, '--allow-file-access-from-files')
    assert seen['controls'] == seen['hidden'] == 0
    assert seen['rows'] == 9 and seen['page'] <= 390
    assert seen['open'] and seen['after']
