"""What a results folder may hold besides sound records: every command names it in one line and writes nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spark_bench import commands
from spark_bench.errors import InputError
from spark_bench.files import write_output
from spark_bench.records import load_all, read, write
from spark_bench.records.json_schema import LARGEST

ROOT = Path(__file__).resolve().parents[2]
PLACE = 'measured/demo/detection/convnext_atto/spark/1.json'


def nested(depth):
    return lambda text: text.replace(b'"artifacts": {}', b'"artifacts": ' + b'{"a": ' * depth + b'1' + b'}' * depth)


CONTENTS = {
    'empty': lambda text: b'',
    'byte order mark': lambda text: b'\xef\xbb\xbf' + text,
    'UTF-16': lambda text: text.decode().encode('utf-16'),
    'UTF-32': lambda text: text.decode().encode('utf-32-le'),
    'zeros': lambda text: bytes(len(text)),
    'half': lambda text: text[: len(text) // 2],
    'twice': lambda text: text + text,
    'single quotes': lambda text: text.replace(b'"', b"'"),
    'newer': lambda text: text.replace(b'"schema_version": 1', b'"schema_version": 2'),
    'older': lambda text: text.replace(b'"schema_version": 1', b'"schema_version": 0'),
    'duplicate key': lambda text: text.replace(b'"seed": 1', b'"seed" : 7, "seed": 1'),
    'duplicate metric': lambda text: text.replace(b'"box_ap"', b'"mask_ap": 99, "box_ap"'),
    'infinite': lambda text: text.replace(b'11.25', b'-Infinity'),
    'too large': lambda text: text.replace(b'61.5', b'1e308'),
    'long number': lambda text: text.replace(b'"seed": 1', b'"seed": 1' + b'0' * 300),
    'longer number': lambda text: text.replace(b'"seed": 1', b'"seed": 1' + b'0' * 5000),
    'negative': lambda text: text.replace(b'11.25', b'-11.25'),
    'number as text': lambda text: text.replace(b'11.25', b'"11.25"'),
    'nested': nested(40),
    'nested deep': nested(960),
    'nested deeper': nested(100_000),
    'control characters in a key': lambda text: text.replace(b'"artifacts": {}', b'"artifacts": {"\\u001b[2J": 1}'),
    'seed of another path': lambda text: text.replace(b'"seed": 1', b'"seed": 2'),
}


@pytest.fixture
def results(tmp_path, make_record):
    for method in ('scratch', 'spark'):
        write(make_record(method=method), tmp_path / 'results')
    write(make_record(seed=1), tmp_path / 'results')
    write(make_record(seed=5), tmp_path / 'other')
    return tmp_path / 'results'


def everything_below(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob('*')}


def assert_every_command_refuses(results, named, capsys):
    """Each exits with 2 and one line on standard error that has ``named``, and leaves every file as it was."""
    folder = results.parent
    before = everything_below(folder)
    for command in (
        ['table', '--results', str(results)],
        ['table', '--results', str(results), '--output', str(folder / 'table.html')],
        ['report', '--results', str(results), '--work-dir', str(folder), '--output', str(folder / 'report.html')],
        ['compare', str(folder / 'other'), str(results)],
        ['compare', str(results), str(folder / 'other'), '--merge', str(folder / 'merged')],
    ):
        assert commands.main(command) == 2, command
        printed = capsys.readouterr()
        assert printed.out == ''
        [line] = printed.err.splitlines()
        assert line.startswith('spark-bench: error: ') and str(named) in line and line.isprintable()
        assert len(line) < 700
    assert everything_below(folder) == before


@pytest.mark.parametrize('name', CONTENTS)
def test_a_broken_file_is_named_by_every_command(results, capsys, name):
    path = results / PLACE
    text = path.read_bytes()
    path.write_bytes(CONTENTS[name](text))
    assert path.read_bytes() != text
    assert_every_command_refuses(results, path, capsys)


def make_folder(path):
    path.mkdir()


def make_link_to_nothing(path):
    path.symlink_to('nowhere')


def make_link_to_itself(path):
    path.symlink_to(path.name)


def make_link_to_a_device(path):
    path.symlink_to('/dev/zero')


def make_link_to_another_record(path):
    path.symlink_to('0.json')


@pytest.mark.parametrize(
    'make',
    [
        make_folder,
        make_link_to_nothing,
        make_link_to_itself,
        make_link_to_a_device,
        make_link_to_another_record,
        os.mkfifo,
    ],
)
def test_what_has_the_name_of_a_record_and_is_none_is_named(results, capsys, make):
    path = (results / PLACE).with_name('9.json')
    make(path)
    assert_every_command_refuses(results, path, capsys)


def test_a_copy_of_the_results_inside_them_is_not_counted_as_further_seeds(results, capsys):
    inside = results / 'measured' / 'demo' / 'backup'
    shutil.copytree(results, results.parent / 'copy')
    shutil.move(results.parent / 'copy', inside)
    assert_every_command_refuses(results, inside, capsys)


def test_links_to_folders_are_followed_and_never_round_in_circles(results, tmp_path, capsys):
    whole = load_all(results)
    folder = (results / PLACE).parent
    folder.rename(tmp_path / 'elsewhere')
    folder.symlink_to(tmp_path / 'elsewhere')
    assert load_all(results) == whole and len(whole) == 3
    (tmp_path / 'elsewhere' / 'round').symlink_to(tmp_path / 'elsewhere')  # too deep for a record: left alone
    assert load_all(results) == whole
    for name in ('round', 'again'):
        (folder.parent / name).symlink_to(folder.parent)
    assert_every_command_refuses(results, folder.parent, capsys)


@pytest.mark.parametrize('place', [PLACE, 'measured/demo/detection/convnext_atto', 'measured', '.'])
def test_what_may_not_be_read_is_named_and_not_left_out(results, place):
    command = [sys.executable, '-m', 'spark_bench', 'table', '--results', str(results), '--format', 'csv']
    if os.geteuid() == 0:  # root reads everything unless it gives its capabilities away
        if shutil.which('setpriv') is None:
            pytest.skip('setpriv is not installed: apt-get install util-linux')
        command = ['setpriv', '--bounding-set=-all', '--inh-caps=-all', *command]
    path = results / place
    path.chmod(0)
    try:
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    finally:
        path.chmod(0o755)
    [line] = run.stderr.splitlines()
    assert run.returncode == 2 and run.stdout == ''
    assert f'{path}' in line and 'Permission denied' in line


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('wall_time_s', 1e11),
        ('seed', 2**64),
        ('setting', {'gpus': 1e101}),
        ('curves', {'loss': [[1e101, 1.0]]}),
        ('curves', {'loss': [[1, -1e101]]}),
        ('metrics', {'loss': 1e101}),
    ],
)
def test_numbers_beyond_all_reason_are_refused_by_key(results, key, value):
    path = results / PLACE
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError, match=f'key "{key}.* greater than the maximum|key "{key}.* less than the minimum'):
        read(path)


def test_of_a_run_that_diverged_no_number_is_recorded(tmp_path, make_record):
    record = make_record('pretrain', metrics={'loss': 1e101}, curves={'loss': [[1, 2.0], [2, -1e101], [3, LARGEST]]})
    assert record.metrics == {'loss': None} and record.curves == {'loss': [[1, 2.0], [2, None], [3, LARGEST]]}
    assert read(write(record, tmp_path)) == record


def test_the_largest_figures_are_compared_and_drawn(tmp_path, make_record):
    for seed, sign in enumerate((1, 1, -1)):
        curves = {'loss': [[1, -LARGEST], [LARGEST, LARGEST], [LARGEST, 1.0]], 'top1': [[1, LARGEST], [2, 1.0]]}
        shared = {'curves': curves, 'wall_time_s': 1e10, 'setting': {'gpus': LARGEST}}
        write(make_record('pretrain', seed=seed, metrics={'loss': sign * LARGEST}, **shared), tmp_path / 'results')
        write(make_record('classification', seed=seed, metrics={'top1': 1.0}, **shared), tmp_path / 'results')
    results = str(tmp_path / 'results')
    assert commands.main(['compare', results, results]) == 0
    assert commands.main(['report', '--results', results, '--output', str(tmp_path / 'r.html')]) == 0


@pytest.mark.parametrize('source', ['', 'two\nlines', 'a\x1b[2Jpage', 'left \u202e right', 'half \ud800', 'end\n'])
def test_a_source_is_a_line_of_printable_text(tmp_path, make_published, source):
    with pytest.raises(InputError, match='key "source"') as caught:
        write(make_published('demo', 'detection', 'resnet50', 'spark', {'box_ap': 1.0}, source=source), tmp_path)
    assert str(caught.value).isprintable() and not list(tmp_path.iterdir())


def test_a_link_in_place_of_an_output_stays_and_what_is_no_file_is_left_alone(tmp_path):
    (tmp_path / 'kept.md').write_text('old')
    (tmp_path / 'link.md').symlink_to('kept.md')
    write_output(tmp_path / 'link.md', 'new')
    assert (tmp_path / 'link.md').is_symlink() and (tmp_path / 'kept.md').read_text() == 'new'
    os.mkfifo(tmp_path / 'pipe.md')
    (tmp_path / 'device.md').symlink_to('/dev/null')
    for other in (tmp_path / 'pipe.md', tmp_path / 'device.md', tmp_path, Path('/'), Path('')):
        with pytest.raises(InputError, match='not a file') as caught:
            write_output(other, 'text')
        assert str(other) in str(caught.value)
    assert (tmp_path / 'pipe.md').is_fifo() and (tmp_path / 'device.md').is_char_device()


def test_a_merge_that_cannot_write_one_record_writes_none(results, tmp_path, capsys):
    merged = tmp_path / 'merged' / 'measured' / 'demo' / 'detection' / 'convnext_atto'
    merged.mkdir(parents=True)
    (merged / 'spark').write_text('in the way')
    before = everything_below(tmp_path)
    assert commands.main(['compare', str(results), str(tmp_path / 'other'), '--merge', str(tmp_path / 'merged')]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(merged / 'spark') in line and everything_below(tmp_path) == before


def test_a_metric_that_no_record_has_is_named_beside_those_there_are(results, capsys):
    assert commands.main(['compare', str(results), str(results), '--metric', 'box_ap', 'boxap']) == 2
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.count('\n') == 1
    assert '--metric boxap' in printed.err and 'mask_ap' in printed.err


def test_a_line_break_in_the_name_of_a_folder_does_not_break_the_line_of_the_message(tmp_path, capsys):
    assert commands.main(['table', '--results', str(tmp_path / 'a\nb')]) == 2
    assert capsys.readouterr().err.count('\n') == 1
