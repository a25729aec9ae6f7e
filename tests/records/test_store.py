"""Records on disk: written once and whole; unsound files answered with one line that names them."""

import dataclasses
import errno
import json
import multiprocessing
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_bench.errors import InputError
from spark_bench.files import write_output
from spark_bench.records import collect_environment, find, load_all, read, write
from spark_bench.records.merge import merge
from spark_bench.records.schema import record_path


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def refusal(function, *arguments, **keywords) -> str:
    """The message of the InputError that the call raises; it must be one line."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert message and '\n' not in message
    return message


def test_a_record_lies_at_its_identity_and_reads_back_the_same(tmp_path, make_record):
    record = make_record(seed=7)
    path = write(record, tmp_path)
    assert path == tmp_path / 'measured/demo/detection/convnext_atto/spark/7.json'
    assert read(path) == record == find(tmp_path, *record.identity)
    assert files_below(tmp_path) == ['measured/demo/detection/convnext_atto/spark/7.json']
    assert json.loads(path.read_text())['metrics'] == {'box_ap': 12.5, 'mask_ap': 11.25, 'box_ap_small': None}


def test_numbers_that_json_lacks_become_null(tmp_path, make_record):
    metrics = {
        'loss': float('nan'),
        'box_ap': float('inf'),
        'top1': np.float32(50.5),
        'mask_ap_small': -1.0,
        'loss_change': -1.0,
    }
    path = write(make_record(metrics=metrics, curves={'loss': [[1, float('-inf')], [2, 0.5]]}), tmp_path)
    stored = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert stored['metrics'] == {'loss': None, 'box_ap': None, 'top1': 50.5, 'mask_ap_small': None, 'loss_change': -1.0}
    assert stored['curves'] == {'loss': [[1, None], [2, 0.5]]}
    assert read(path).metrics == stored['metrics']


def test_a_repetition_leaves_the_first_record_and_another_run_is_refused(tmp_path, make_record):
    path = write(make_record(wall_time_s=1.0), tmp_path)
    before = path.read_bytes()
    assert write(make_record(wall_time_s=2.0), tmp_path) == path
    others = [
        make_record(config_hash='99' * 32),
        make_record(weights={'path': 'a.pth', 'sha256': 'ab' * 32, 'config_hash': 'cd' * 32}),
        make_record(dataset={**make_record().dataset, 'sha256': 'ee' * 32}),
    ]
    for other in others:
        message = refusal(write, other, tmp_path)
        assert str(path) in message and '--results' in message
    assert path.read_bytes() == before
    assert len(files_below(tmp_path)) == 1


def test_a_published_record_names_its_source_and_may_leave_the_rest_unknown(tmp_path, make_record):
    unknown = dict.fromkeys(('config_hash', 'config', 'dataset', 'environment', 'started_at', 'wall_time_s'))
    published = make_record(origin='published', curves={}, source='a paper', verified=False, **unknown)
    path = write(published, tmp_path)
    assert read(path) == published
    assert write(published, tmp_path) == path
    assert str(path) in refusal(write, dataclasses.replace(published, metrics={'box_ap': 1.0}), tmp_path)
    assert 'source' in refusal(write, dataclasses.replace(published, seed=1, source=None), tmp_path)
    assert 'config_hash' in refusal(write, make_record(config_hash=None), tmp_path)
    assert 'published' in refusal(write, make_record(source='a paper'), tmp_path)


def test_a_file_name_that_is_no_unicode_reads_back_the_same(tmp_path, make_record):
    record = make_record(artifacts={'predictions': os.fsdecode(b'caf\xe9/p.json'), 'log': 'größe/日本.txt'})
    assert read(write(record, tmp_path)) == record
    assert 'größe/日本.txt' in next(tmp_path.rglob('0.json')).read_text(encoding='utf-8')


@pytest.mark.parametrize('field', ['suite', 'arch', 'method'])
@pytest.mark.parametrize('name', ['..', '.', '', '../x', 'a/b', '/etc', 'a..b', '.hidden', 'a\n', 'a b', 'ä', 'x\0'])
def test_a_name_cannot_lead_out_of_the_results_folder(tmp_path, make_record, field, name):
    record = make_record(**{field: name})
    assert f'"{field}"' in refusal(write, record, tmp_path / 'results')
    assert f'"{field}"' in refusal(find, tmp_path / 'results', *record.identity)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('seed', -1),
        ('seed', 1.5),
        ('seed', True),
        ('origin', 'guessed'),
        ('task', 'segmentation'),
        ('metrics', {'top1': '80'}),
        ('metrics', {'top1': True}),
        ('metrics', {'box_ap': 101.0}),
        ('curves', {'loss': [[1]]}),
        ('started_at', 'yesterday'),
        ('wall_time_s', -1),
        ('config_hash', 'xyz'),
        ('environment', {'python': '3.11'}),
        ('weights', {'path': 'a'}),
        ('artifacts', {'log': 5}),
        ('schema_version', 2),
    ],
)
def test_what_breaks_the_schema_is_refused_by_key_on_write_and_on_read(tmp_path, make_record, key, value):
    assert f'key "{key}' in refusal(write, make_record(**{key: value}), tmp_path / 'new')
    assert not (tmp_path / 'new').exists()
    path = write(make_record(), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    message = refusal(read, path)
    assert str(path) in message and f'"{key}' in message


def test_a_line_break_in_a_key_does_not_break_the_line_of_the_message(tmp_path, make_record):
    path = write(make_record(), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), 'artifacts': {'a\nb': None}}))
    assert 'artifacts.a\\nb' in refusal(read, path)


def test_unknown_and_missing_keys_are_refused_by_name(tmp_path, make_record):
    path = write(make_record(), tmp_path)
    values = json.loads(path.read_text())
    for changed, key in ([{**values, 'note': 1}, 'note'], [{k: v for k, v in values.items() if k != 'arch'}, 'arch']):
        path.write_text(json.dumps(changed))
        message = refusal(load_all, tmp_path)
        assert str(path) in message and f"'{key}'" in message


def test_every_truncation_of_a_record_is_refused_with_the_name_of_its_file(tmp_path, make_record):
    path = write(make_record(), tmp_path)
    whole = path.read_bytes().rstrip(b'\n')
    assert len(whole) > 500
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert str(path) in refusal(read, path)
    path.write_bytes(whole)
    assert read(path) == make_record()


@pytest.mark.parametrize(
    'content',
    [b'\xff\xfe', b'null', b'[]', b'"text"', b'NaN', b'[' * 100_000, b'{"seed": 1, "seed": 2}', b'{}{}', b'1' * 5000],
    ids=lambda content: content[:12].decode('latin1'),
)
def test_files_that_are_no_record_are_refused_with_their_name(tmp_path, make_record, content):
    path = write(make_record(), tmp_path)
    path.write_bytes(content)
    assert str(path) in refusal(read, path)


@pytest.mark.parametrize(('old', 'new'), [('12.5', 'NaN'), ('12.5', '1e999'), ('"seed": 0', '"seed": 0, "seed": 0')])
def test_a_number_without_meaning_and_a_key_given_twice_are_refused(tmp_path, make_record, old, new):
    path = write(make_record(), tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert str(path) in refusal(read, path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_value_in_any_place_is_read_or_refused_but_never_a_crash(tmp_path, make_record, data):
    leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    anything = st.recursive(
        leaf, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3)
    )
    values = make_record().to_dict()
    key = data.draw(st.sampled_from(sorted(values)))
    values[key] = data.draw(anything)
    path = record_path(tmp_path, *make_record().identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    try:
        record = read(path)
    except InputError as error:
        assert str(path) in str(error) and '\n' not in str(error)
    else:
        assert record_path(tmp_path, *record.identity) == path


@pytest.mark.parametrize(
    ('moved', 'key'),
    [
        ('published/demo/detection/convnext_atto/spark/0.json', 'origin'),
        ('measured/other/detection/convnext_atto/spark/0.json', 'suite'),
        ('measured/demo/pretrain/convnext_atto/spark/0.json', 'task'),
        ('measured/demo/detection/resnet18/spark/0.json', 'arch'),
        ('measured/demo/detection/convnext_atto/scratch/0.json', 'method'),
        ('measured/demo/detection/convnext_atto/spark/1.json', 'seed'),
        ('measured/demo/detection/convnext_atto/spark/00.json', 'seed'),
    ],
)
def test_a_record_that_was_moved_is_refused_by_the_part_that_differs(tmp_path, make_record, moved, key):
    path = write(make_record(), tmp_path)
    target = tmp_path / moved
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    message = refusal(load_all, tmp_path)
    assert str(target) in message and f'"{key}"' in message


def test_all_records_of_one_suite_or_of_every_suite_are_found(tmp_path, make_record):
    records = [make_record(method=m, suite=s, seed=i) for m in ('spark', 'scratch') for s in 'ab' for i in (0, 1, 10)]
    for record in records:
        write(record, tmp_path)
    assert {r.identity for r in load_all(tmp_path)} == {r.identity for r in records}
    assert {r.identity for r in load_all(tmp_path, 'a')} == {r.identity for r in records if r.suite == 'a'}
    assert load_all(tmp_path, 'none') == load_all(tmp_path / 'nowhere') == []
    assert find(tmp_path, 'measured', 'a', 'detection', 'convnext_atto', 'spark', 2) is None


def in_processes(function, argument_lists) -> list:
    """Run ``function`` once a list of arguments, each in a process of its own, all let go at one moment."""
    context = multiprocessing.get_context('fork')
    barrier, answers = context.Barrier(len(argument_lists)), context.SimpleQueue()

    def work(arguments):
        barrier.wait(timeout=20)
        answers.put(function(*arguments))

    processes = [context.Process(target=work, args=(arguments,)) for arguments in argument_lists]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    return [answers.get() for _ in processes]


def write_many(results, records):
    return [str(write(record, results)) for record in records]


def write_outcome(results, record):
    try:
        write(record, results)
    except InputError:
        return 'refused'
    return 'written'


def test_eight_processes_write_their_own_records_at_once(tmp_path, make_record):
    # All in one folder, where they are most in each other's way.
    groups = [[make_record(seed=1000 * i + j) for j in range(500)] for i in range(8)]
    counts = in_processes(lambda *arguments: len(write_many(*arguments)), [(tmp_path, group) for group in groups])
    assert counts == [500] * 8
    assert load_all(tmp_path) == sorted((r for g in groups for r in g), key=lambda r: str(r.seed) + '.json')
    assert len(files_below(tmp_path)) == 4000


def test_eight_processes_write_the_same_record_at_once(tmp_path, make_record):
    records = [make_record(wall_time_s=float(i)) for i in range(8)]
    answers = in_processes(write_many, [(tmp_path, [record]) for record in records])
    assert len({path for paths in answers for path in paths}) == 1
    assert len(files_below(tmp_path)) == 1
    assert load_all(tmp_path)[0] in records


def test_of_eight_different_runs_for_one_path_exactly_one_is_recorded(tmp_path, make_record):
    records = [make_record(config_hash=f'{i:02d}' * 32) for i in range(8)]
    outcomes = in_processes(write_outcome, [(tmp_path, record) for record in records])
    assert sorted(outcomes) == ['refused'] * 7 + ['written']
    assert len(files_below(tmp_path)) == 1 and load_all(tmp_path)[0] in records


def test_a_file_system_without_hard_links_keeps_the_same_rules(tmp_path, make_record, monkeypatch):
    def no_links(source, target):
        raise OSError(errno.EPERM, 'Operation not permitted')

    monkeypatch.setattr(os, 'link', no_links)
    path = write(make_record(), tmp_path)
    assert read(path) == make_record()
    assert write(make_record(), tmp_path) == path
    assert str(path) in refusal(write, make_record(config_hash='99' * 32), tmp_path)
    assert len(files_below(tmp_path)) == 1


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_folder_is_named_and_nothing_is_left_behind(tmp_path, make_record, monkeypatch, code):
    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, 'fsync', fail)
    message = refusal(write, make_record(), tmp_path)
    assert str(tmp_path) in message and '--results' in message
    assert str(tmp_path / 'table.md') in refusal(write_output, tmp_path / 'table.md', 'text')
    assert files_below(tmp_path) == []


def test_a_file_in_place_of_the_results_folder_is_named(tmp_path, make_record):
    (tmp_path / 'results').write_text('not a folder')
    assert str(tmp_path / 'results') in refusal(write, make_record(), tmp_path / 'results')
    assert (tmp_path / 'results').read_text() == 'not a folder'


def test_the_environment_fits_the_schema_and_tells_this_machine(tmp_path, make_record):
    environment = collect_environment()
    assert read(write(make_record(environment=environment), tmp_path)).environment == environment
    assert environment['python'] == '.'.join(map(str, sys.version_info[:3]))
    assert environment['packages']['numpy'] == np.__version__
    assert 1 <= environment['cores'] <= os.cpu_count()


def test_threads_and_gpu_come_from_torch_where_it_is_loaded(monkeypatch):
    cuda = types.SimpleNamespace(is_available=lambda: True, get_device_name=lambda: 'some GPU')
    monkeypatch.setitem(sys.modules, 'torch', types.SimpleNamespace(get_num_threads=lambda: 3, cuda=cuda))
    environment = collect_environment()
    assert (environment['threads'], environment['gpu']) == (3, 'some GPU')


def test_what_is_no_record_is_told_so_and_what_is_hidden_passed_over(tmp_path, make_record):
    path = write(make_record(), tmp_path)
    for name in ('._0.json', '.notes.json'):
        (path.parent / name).write_bytes(b'\x00\x05\x16\x07')
    hidden = tmp_path / 'measured' / '.trash'
    hidden.mkdir()
    (hidden / '0.json').write_text('{}')
    assert len(load_all(tmp_path)) == 1
    for name, content in (
        ('notes.json', '{"a": 1}'),
        ('list.json', '[1]'),
        ('report.html.json', '<html>'),
        ('1.json', '{"fine": true}'),
    ):
        (path.parent / name).write_text(content)
        told = refusal(load_all, tmp_path)
        assert name in told and 'this is no record' in told and 'version control' not in told
        (path.parent / name).unlink()
    (path.parent / '1.json').write_text('{"origin": ')  # a record by its name
    assert 'version control' in refusal(load_all, tmp_path)


def test_a_folder_that_cannot_be_written_is_told_by_the_option_that_named_it(tmp_path, make_record):
    (tmp_path / 'file').write_text('x')
    told = refusal(merge, [make_record()], [], tmp_path / 'file' / 'merged')
    assert '--merge' in told and '--results' not in told


def test_a_record_is_at_its_path_however_that_is_written(tmp_path, make_record, monkeypatch):
    path = write(make_record(), tmp_path)
    monkeypatch.chdir(path.parent)
    assert read(os.path.join('..', path.parent.name, path.name)) == read(path)


def test_a_full_disk_asks_for_room(tmp_path, make_record, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'link', full)
    with pytest.raises(InputError, match='No space left on device; make room, or choose another with --results'):
        write(make_record(), tmp_path)
