"""The published figures that are committed, against the list that they come from and the tables that they fill."""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spark_bench.errors import InputError
from spark_bench.records import load_all, write
from spark_bench.suites.definition import specs_of
from spark_bench.suites.published import main, published_records
from spark_bench.tables import build_table, to_csv, to_grid, to_html, to_latex, to_markdown

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT.parent / 'shared' / 'published_results.json'
PAPER = ('ablation', 'scaling', 'resnet50', 'transformers')


@pytest.fixture(scope='module')
def published():
    return [record for record in load_all(ROOT / 'results') if record.origin == 'published']


@pytest.fixture(scope='module')
def document():
    if not FIGURES.is_file():
        pytest.skip(f'{FIGURES} is not here: the list that the published records were made from')
    return json.loads(FIGURES.read_text())


def of_suite(records, suite):
    return [record for record in records if record.suite == suite]


def tables(published):
    return {spec.name: build_table(of_suite(published, suite), spec) for suite in PAPER for spec in specs_of(suite)}


def figures(table):
    """The table as {(arch, method, metric label): '41.6†'}."""
    return {
        (row.arch, row.method, column.label): f'{cell.value:g}' + ('' if cell.verified else '†')
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.value is not None
    }


def test_every_published_record_names_its_source_and_holds_a_figure(published):
    assert len(published) > 60
    for record in published:
        assert len(record.source.strip()) > 5 and record.verified in (True, False), record.identity
        assert any(value is not None for value in record.metrics.values()), record.identity


@pytest.mark.parametrize('source', [None, ''])
def test_a_published_record_without_a_source_is_refused_on_write_and_on_read(tmp_path, published, source):
    path = write(published[0], tmp_path)
    values = json.loads(path.read_text())
    values.pop('source')
    path.write_text(json.dumps(values if source is None else {**values, 'source': source}))
    with pytest.raises(InputError, match=r'0\.json: .*source'):
        load_all(tmp_path)


def test_the_committed_records_are_those_of_the_list(published, document):
    def key(record):
        return record.identity

    assert sorted(published, key=key) == sorted(published_records(document), key=key)


def test_no_figure_of_the_list_is_lost_and_none_is_added(published, document):
    listed = set()
    for entry in document['classification']:
        setting = (entry['pretrain_epochs'], entry['finetune_epochs'], entry['resolution'], None)
        listed.add((entry['arch'], entry['method'], 'top1', entry['top1'], setting, entry['source'], entry['verified']))
    for entry in document['detection_mask_rcnn_coco']:
        for metric in ('box_ap', 'mask_ap'):
            setting = (None, None, None, entry['schedule'])
            if entry[metric] is not None:
                listed.add((entry['arch'], entry['method'], metric, entry[metric], setting, entry['source'],
                            entry['verified']))  # fmt: skip
    section = document['ablation']
    for row in section['rows']:
        source = '; '.join(filter(None, (section['source'], row.get('note'))))
        listed.add((section['model'], row['ablation'], section['metric'], row['top1'], (None,) * 4, source,
                    row['verified']))  # fmt: skip
    names = ('pretrain_epochs', 'finetune_epochs', 'resolution', 'schedule')
    stored = {
        (r.arch, r.method, metric, value, tuple((r.setting or {}).get(n) for n in names), r.source, r.verified)
        for r in published
        for metric, value in r.metrics.items()
        if value is not None
    }
    assert stored == listed


def test_no_table_shows_what_stands_among_the_others_and_every_other_record_is_shown(published):
    places = {
        (suite, column.task, row.arch, row.method)
        for suite in PAPER
        for spec in specs_of(suite)
        for row in build_table(of_suite(published, suite), spec).rows
        for column in spec.columns
    }
    for record in published:
        assert record.suite == 'others' or record.identity[1:5] in places, record.identity
        assert record.identity[5] == 0 or record.arch == 'convnext_base'  # the one cell with two sources


# Copied by hand from the list of published figures; a dagger where the list says that a figure is not verified.
ABLATION = {
    'scratch': '83.1', 'spark': '84.1', 'black_mosaic': '83.2†', 'no_hierarchy': '83.6†', 'ape': '83.9†',
    'loss_on_all': '83.3†', 'half_schedule': '83.7†',
}  # fmt: skip
TOP1 = {  # supervised, spark
    'resnet50': ('79.8', '80.6'), 'resnet101': ('81.3', '82.2'), 'resnet152': ('81.8', '82.7'),
    'resnet200': ('82.1', '83.1'), 'convnext_small': ('83.1', '84.1'), 'convnext_base': ('83.8', '84.8'),
    'convnext_large': ('84.3', '85.4'),
}  # fmt: skip
RESNET50 = {  # box and mask AP, 1x, then 2x
    'scratch': ('32.8', '29.9'), 'supervised': ('39.7', '35.9', '41.6', '37.6'),
    'moco_v2': ('40.2', '36.1', '41.7', '37.6'), 'infomin': ('40.6', '36.7', '42.5', '38.4'),
    'swav': ('40.2', '36.3'), 'byol': ('40.9', '36.8'), 'simsiam': ('38.8', '34.9'), 'simclr': ('38.7', '34.9'),
    'spark': ('41.6†', '37.7†', '43.4†', '39.4†'),
}  # fmt: skip
TRANSFORMERS = {  # top-1, box AP, mask AP
    ('swin_base', 'supervised'): ('83.5', '48.5†', '43.2†'), ('swin_base', 'simmim'): ('84', '50.4', '44.4'),
    ('vit_base', 'moco_v3'): ('83.2', None, None), ('vit_base', 'beit'): (None, '49.8', '44.4'),
    ('vit_base', 'simmim'): ('83.8', None, None), ('vit_base', 'mae'): ('83.6', '50.3', '44.9'),
    ('convnext_base', 'supervised'): ('83.8', '47.7†', '43.2†'),
    ('convnext_base', 'spark'): ('84.8', '51.2†', '45.1'),
}  # fmt: skip


def test_the_published_part_of_each_table_is_the_papers(published):
    found = {name: figures(table) for name, table in tables(published).items()}
    assert found['ablation'] == {('convnext_small', method, 'top-1'): text for method, text in ABLATION.items()}
    scaling = {
        (arch, method, 'top-1'): text
        for arch, pair in TOP1.items()
        for method, text in zip(('supervised', 'spark'), pair, strict=True)
    }
    scaling |= {
        ('resnet50', 'supervised', 'box AP'): '39.7', ('resnet50', 'supervised', 'mask AP'): '35.9',
        ('resnet50', 'spark', 'box AP'): '41.6†', ('resnet50', 'spark', 'mask AP'): '37.7†',
        ('convnext_base', 'supervised', 'box AP'): '47.7†', ('convnext_base', 'supervised', 'mask AP'): '43.2†',
        ('convnext_base', 'spark', 'box AP'): '51.2†', ('convnext_base', 'spark', 'mask AP'): '45.1',
    }  # fmt: skip
    assert found['scaling'] == scaling
    labels = ('box AP, 1x', 'mask AP, 1x', 'box AP, 2x', 'mask AP, 2x')
    assert found['resnet50'] == {
        ('resnet50', method, label): text
        for method, texts in RESNET50.items()
        for label, text in zip(labels, texts, strict=False)
    }
    assert found['transformers'] == {
        (*name, label): text
        for name, texts in TRANSFORMERS.items()
        for label, text in zip(('top-1', 'box AP', 'mask AP'), texts, strict=True)
        if text
    }
    assert sorted(found['scaling_384'].values()) == ['85.5', '86']
    assert sorted(found['transformers_vitdet'].values()) == ['45.9', '51.6']


def test_every_figure_of_the_tables_is_traced_to_its_source(published):
    lines = list(csv.DictReader(io.StringIO(to_csv(*tables(published).values()))))
    shown = [line for line in lines if line['value']]
    assert len(shown) > 70 and all(len(line['source']) > 5 for line in shown)
    for table in tables(published).values():
        text = to_markdown(table)
        assert all(source in text.replace('\\', '') for source in table.sources)


def test_what_is_not_verified_carries_a_dagger_in_every_format_and_enters_no_claim(published):
    import rich.console

    for table in tables(published).values():
        doubtful = [cell for cell in table.cells if not cell.verified]
        differences = [cell for cell in table.cells if not cell.delta_verified]
        console = rich.console.Console(file=io.StringIO(), width=250)
        console.print(to_grid(table).to_rich())
        labels = sum('†' in row.label for row in table.rows)
        daggers = len(doubtful) + len(differences) + labels
        # The note has one more where there is any.
        daggers += bool(daggers)
        assert to_markdown(table).count('†') == console.file.getvalue().count('†') == daggers, table.name
        assert to_latex(table).count(r'^{\dagger}') == daggers, table.name
        assert to_html(table).count('†') == daggers, table.name
        lines = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert sum(line['mark'] == '†' for line in lines) == len(doubtful)
        assert sum(line['delta_mark'] == '†' for line in lines) == len(differences)
        assert not any(cell.best for cell in table.cells)
        assert all(cell.delta_beyond_noise is None for cell in table.cells)
    assert any(not cell.verified for table in tables(published).values() for cell in table.cells)


ENTRY = {
    'arch': 'resnet50', 'method': 'spark', 'pretrain_epochs': 1600, 'finetune_epochs': 300, 'resolution': 224,
    'top1': 80.6, 'source': 'a page', 'verified': True,
}  # fmt: skip


def importing(folder, text):
    """Run the script on a file of `text`, with results in `folder`."""
    (folder / 'figures.json').write_text(text, encoding='utf-8')
    command = [sys.executable, str(ROOT / 'tools' / 'import_published.py'), str(folder / 'figures.json')]
    command += ['--results', str(folder / 'results')]
    environment = {'PATH': os.environ['PATH'], 'PYTHONPATH': str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_the_script_writes_the_records_once_and_never_over_another(tmp_path):
    text = json.dumps({'classification': [ENTRY]})
    for _ in range(2):
        run = importing(tmp_path, text)
        assert run.returncode == 0, run.stderr
        assert run.stdout == '1 published records: scaling 1\n'
    assert [record.metrics for record in load_all(tmp_path / 'results')] == [{'top1': 80.6}]
    further = {**ENTRY, 'arch': 'resnet101'}
    run = importing(tmp_path, json.dumps({'classification': [further, {**ENTRY, 'top1': 80.7}]}))
    assert run.returncode == 2 and 'resnet50/spark/0.json' in run.stderr
    assert len(load_all(tmp_path / 'results')) == 1


@pytest.mark.parametrize(('text', 'named'), [
    ('{', 'not JSON'), ('[]', "is not of type 'object'"), ('{"ablation": 1, "ablation": 2}', 'twice'),
    (json.dumps({'classification': [ENTRY, {**ENTRY, 'top1': float('nan')}]}), 'NaN'),
    (json.dumps({'classification': [ENTRY, {**ENTRY, 'top1': 101}]}), 'classification.1.top1'),
    (json.dumps({'classification': [ENTRY, {**ENTRY, 'arch': '../x'}]}), 'classification.1.arch'),
    (json.dumps({'classification': [ENTRY, {**ENTRY, 'method': ['spark']}]}), 'classification.1.method'),
    (json.dumps({'classification': [ENTRY, {**ENTRY, 'verified': 'yes'}]}), 'classification.1.verified'),
    (json.dumps({'classification': [ENTRY, {**ENTRY, 'source': ' a\nb'}]}), 'classification.1.source'),
    (json.dumps({'classification': [ENTRY, {k: v for k, v in ENTRY.items() if k != 'source'}]}), "'source'"),
    (json.dumps({'detection_mask_rcnn_coco': [ENTRY]}), "'box_ap'"),
    (json.dumps({'classification': [ENTRY], 'ablation': {'rows': [5]}}), 'ablation'),
])  # fmt: skip
def test_a_broken_list_is_named_with_the_key_and_nothing_is_written(tmp_path, text, named):
    (tmp_path / 'figures.json').write_text(text)
    arguments = argparse.Namespace(file=str(tmp_path / 'figures.json'), results=str(tmp_path / 'results'))
    with pytest.raises(InputError) as caught:
        main(arguments)
    message = str(caught.value)
    assert message.startswith(arguments.file) and named in message and '\n' not in message
    assert not (tmp_path / 'results').exists()
