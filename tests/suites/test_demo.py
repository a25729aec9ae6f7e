"""The quick demo as a user runs it: records, table, report."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spark_bench import commands
from spark_bench.records import load_all

METHODS = ['scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic']


def start_demo(folder):
    """The quick demo in ``folder``, in a session of its own."""
    environment = {**os.environ, 'PYTHONPATH': os.getcwd()}
    return subprocess.Popen(
        [sys.executable, '-m', 'spark_bench', 'demo', '--quick'],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, process, patience_s=200):
    deadline = time.monotonic() + patience_s
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition(), process.communicate()[0] if process.poll() is not None else 'too slow'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    process = start_demo(folder)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    # A line for the data where they are not there yet, one a run, then table and report: nothing of a library.
    first = next(line for line in output.splitlines() if not line.startswith('embedded data set '))
    assert first.startswith('[1/14] ') and 'Could not import' not in output
    return folder


@pytest.fixture(scope='module')
def records(folder):
    return load_all(folder / 'results', 'demo-quick')


def test_every_cell_has_one_record(records):
    cells = {(record.task, record.method) for record in records}
    expected = {(task, method) for task in ('pretrain', 'classification', 'detection') for method in METHODS}
    assert cells == expected - {('pretrain', 'scratch')} and len(records) == 14
    assert {record.arch for record in records} == {'test_resnet'}


def test_transfer_starts_from_the_pretraining_of_its_own_row(records):
    pretraining = {record.method: record.config_hash for record in records if record.task == 'pretrain'}
    assert len(set(pretraining.values())) == 4
    for record in records:
        if record.task != 'pretrain':
            started = None if record.weights is None else record.weights['config_hash']
            assert started == pretraining.get(record.method)


def test_curves_run_to_the_last_step_without_a_gap(records):
    for record in records:
        steps = [step for step, _ in record.curves['loss']]
        assert steps == list(range(1, len(steps) + 1)) and all(value > 0 for _, value in record.curves['loss'])
    lengths = {task: {len(r.curves['loss']) for r in records if r.task == task} for task in ('pretrain', 'detection')}
    assert all(len(of_task) == 1 for of_task in lengths.values()), lengths


def test_recorded_ap_equals_pycocotools_on_the_dumped_predictions(folder, records):
    checked = 0
    for record in records:
        if record.task != 'detection':
            continue
        dumped = json.loads((folder / record.artifacts['predictions']).read_text())
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(record.dataset['annotations'])
            for iou_type, key in (('bbox', 'box_ap'), ('segm', 'mask_ap')):
                if not dumped:
                    assert record.metrics[key] == 0
                    continue
                results = [{k: v for k, v in d.items() if iou_type == 'bbox' or k != 'bbox'} for d in dumped]
                evaluation = COCOeval(truth, truth.loadRes(results), iou_type)
                evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
                assert record.metrics[key] == pytest.approx(100 * evaluation.stats[0], abs=1e-9)
        checked += 1
    assert checked == 5


def test_the_table_shows_the_records(folder, records):
    rows = list(csv.DictReader((folder / 'results/tables/demo-quick.csv').open()))
    metrics = {(record.task, record.method): record.metrics for record in records}
    assert list(dict.fromkeys(row['method'] for row in rows)) == METHODS
    assert {(row['task'], row['metric']) for row in rows} == {
        ('classification', 'top1'),
        ('detection', 'box_ap'),
        ('detection', 'mask_ap'),
    }
    for row in rows:
        value = metrics[row['task'], row['method']][row['metric']]
        baseline = metrics[row['task'], 'scratch'][row['metric']]
        assert float(row['value']) == value and row['n'] == '1'
        if row['method'] != 'scratch':
            assert float(row['delta']) == pytest.approx(value - baseline)


def test_report_is_self_contained_and_shows_images_of_every_method(folder):
    page = (folder / 'results/report-demo-quick.html').read_text()
    assert 'http://' not in page.replace('http://www.w3.org', '') and 'src="data:image/' in page
    for method in METHODS[1:]:
        assert f'{method}' in page
    assert page.count('<img') >= 4 * 3


def test_a_second_run_changes_no_record(folder, monkeypatch):
    def state():
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in Path(folder, 'results/measured').rglob('*.json')
        }

    before = state()
    monkeypatch.chdir(folder)
    assert commands.main(['demo', '--quick']) == 0
    assert state() == before and len(before) == 14


@pytest.mark.slow
def test_killed_on_the_way_it_ends_with_the_same_records(records, tmp_path):
    for event in ('pretrain/*/spark/0/epoch_1.pth', 'detection/*/*/0/progress.json'):
        process = start_demo(tmp_path)
        wait_for(lambda event=event: list(tmp_path.glob(f'work_dirs/demo-quick/{event}')), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / 'results/report-demo-quick.html').exists()
    process = start_demo(tmp_path)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output

    def outcome(found):
        return {record.identity: (record.config_hash, record.metrics, record.curves) for record in found}

    assert outcome(load_all(tmp_path / 'results', 'demo-quick')) == outcome(records)
