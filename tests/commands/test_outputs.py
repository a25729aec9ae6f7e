"""Outputs replace what the same command wrote before, and nothing else; what is in the way is told before the work."""

import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from spark_bench import commands
from spark_bench.errors import InputError
from spark_bench.files import claim_output
from spark_bench.profiling import measuring
from spark_bench.records import load_all
from spark_bench.records import write as write_record
from spark_bench.records.schema import Record
from spark_bench.tables import command

FOREIGN = {
    '.json': '{"images": []}',
    '.csv': 'a,b\n1,2\n',
    '.md': '# Notes\n',
    '.txt': 'mine\n',
    '.tex': '\\section{}',
    '.html': '<!DOCTYPE html>\n<title>mine</title>',
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder with a small suite, and the current folder beside it."""
    monkeypatch.chdir(tmp_path)
    for method, value in (('scratch', 40.0), ('spark', 41.0)):
        write_record(
            Record(
                origin='published',
                suite='demo',
                task='detection',
                arch='resnet50',
                method=method,
                seed=0,
                metrics={'box_ap': value},
                source='somewhere',
                verified=True,
            ),
            'results',
        )
    return tmp_path / 'results'


def make_coco(root):
    """The smallest folder in COCO layout."""
    (root / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        (root / split).mkdir()
        Image.effect_noise((64, 48), 80).convert('RGB').save(root / split / '0.png')
        (root / f'annotations/instances_{split}.json').write_text(
            json.dumps(
                {
                    'images': [{'id': 1, 'file_name': '0.png', 'width': 64, 'height': 48}],
                    'annotations': [
                        {
                            'id': 1,
                            'image_id': 1,
                            'category_id': 1,
                            'bbox': [4, 4, 30, 30],
                            'area': 900,
                            'iscrowd': 0,
                            'segmentation': [[4, 4, 34, 4, 34, 34, 4, 34]],
                        }
                    ],
                    'categories': [{'id': 1, 'name': 'box'}],
                }
            )
        )
    return root


def refused(capsys, words, kept):
    contents = kept.read_bytes()
    assert commands.main(words) == 2
    out, error = capsys.readouterr()
    assert error.startswith('spark-bench: error: ') and error.count('\n') == 1 and str(kept) in error, error
    assert kept.read_bytes() == contents and out == ''
    return error


COMMANDS = (
    [('table', name) for name in ('x.md', 'x.csv', 'x.tex', 'x.html', 'x.txt')]
    + [('compare', name) for name in ('x.md', 'x.csv', 'x.txt')]
    + [('report', 'x.html')]
)


@pytest.mark.parametrize('command, name', COMMANDS)
def test_an_earlier_output_is_replaced_and_a_foreign_file_kept(results, capsys, command, name):
    words = [command, *(['results', 'results'] if command == 'compare' else []), '--output', name]
    for _ in range(2):
        assert commands.main(words) == 0
    Path(name).write_text('')  # as mktemp makes it
    assert commands.main(words) == 0
    capsys.readouterr()
    Path(name).write_text(FOREIGN[Path(name).suffix])
    assert 'another name' in refused(capsys, words, Path(name))
    Path(name).unlink()
    Path(name).symlink_to(Path('other').absolute())
    Path('other').write_text('mine')
    refused(capsys, words, Path(name))


def test_one_command_does_not_replace_what_another_wrote(results, capsys):
    for name in ('x.md', 'x.csv', 'x.txt'):
        assert commands.main(['table', '--output', name]) == 0
        capsys.readouterr()
        refused(capsys, ['compare', 'results', 'results', '--output', name], Path(name))
    assert commands.main(['report', '--output', 'x.html']) == 0
    capsys.readouterr()
    refused(capsys, ['table', '--output', 'x.html'], Path('x.html'))


@pytest.mark.parametrize('name', ['tables/demo.md', 'tables/demo.csv', 'report.html'])
def test_also_what_a_command_names_itself_is_not_replaced(results, capsys, name):
    place = results / name
    place.parent.mkdir(exist_ok=True)
    place.write_text('mine')
    words = ['report'] if name == 'report.html' else ['table']
    error = refused(capsys, words, Path('results') / name)
    assert 'kept' in error


def test_a_suite_tells_of_it_before_it_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('spark_bench.suites.command.build_cells', lambda *args: pytest.fail('began'))
    monkeypatch.setattr('spark_bench.suites.plan.build_cells', lambda *args: pytest.fail('began'))
    place = tmp_path / 'r/report-demo-quick.html'
    place.parent.mkdir()
    place.write_text('mine')
    for words in (['demo', '--quick'], ['run', 'demo_quick']):
        refused(capsys, [*words, '--results', str(tmp_path / 'r'), '--work-dir', str(tmp_path / 'w')], place)


def test_a_report_of_a_check_is_no_place_for_annotations(tmp_path, capsys):
    root = make_coco(tmp_path / 'data')
    words = ['data', 'check', str(root), '--workers', '1', '--json']
    error = refused(
        capsys, [*words, str(root / 'annotations/instances_train.json')], root / 'annotations/instances_train.json'
    )
    assert '--json' in error
    for _ in range(2):
        assert commands.main([*words, str(tmp_path / 'r.json')]) in (0, 1)
    assert json.loads((tmp_path / 'r.json').read_text())['layout'] == 'coco'
    foreign = tmp_path / 'mine.json'
    foreign.write_text('{"root": 3}')
    capsys.readouterr()
    refused(capsys, [*words, str(foreign)], foreign)


def test_a_profile_replaces_a_profile_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measuring, 'measure', lambda arch, **settings: [])
    words = ['profile', 'test_resnet', '--json', str(tmp_path / 'p.json')]
    for _ in range(2):
        assert commands.main(words) == 0
    (tmp_path / 'p.json').write_text('{"settings": 3}')
    capsys.readouterr()
    refused(capsys, words, tmp_path / 'p.json')


def test_every_command_makes_the_folder_of_its_output(results, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, 'measure', lambda arch, **settings: [])
    root = make_coco(tmp_path / 'data')
    for number, words in enumerate(
        (
            ['table', '--output', '{}/x.md'],
            ['report', '--output', '{}/x.html'],
            ['profile', 'test_resnet', '--json', '{}/x.json'],
            ['data', 'check', str(root), '--workers', '1', '--json', '{}/x.json'],
        )
    ):
        assert commands.main([word.format(f'new{number}/below') for word in words]) in (0, 1)
        assert len(list(Path(f'new{number}/below').glob('x.*'))) == 1


def test_names_that_are_no_files_are_refused(results, capsys):
    Path('folder').mkdir()
    os.mkfifo('pipe.md')
    for name, why in (('folder/', 'slash'), ('new/', 'slash'), ('folder', 'HTML'), ('x.md', 'HTML'), ('x.txt', 'HTML')):
        assert commands.main(['report', '--output', name]) == 2
        assert why in capsys.readouterr().err
    for name, why in (('folder/', 'slash'), ('pipe.md', 'not a file'), ('folder', 'not a file')):
        assert commands.main(['table', '--format', 'markdown', '--output', name]) == 2
        assert why in capsys.readouterr().err
    assert not Path('new').exists() and load_all('results')


def test_a_place_that_cannot_be_written_is_told_with_the_reason(tmp_path):
    (tmp_path / 'file').write_text('x')
    for path, why in ((tmp_path / 'file/x.md', 'Not a directory'), (Path('/proc/x.md'), 'No such file')):
        with pytest.raises(InputError, match=re.escape(str(path))) as caught:
            claim_output(path, command.OWN)
        assert why in str(caught.value)
