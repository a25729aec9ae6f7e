"""The quick check of many records against the jsonschema package, which it must never be more lenient than."""

import copy
import json

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_bench.errors import InputError
from spark_bench.records import load_all, read, write
from spark_bench.records.json_schema import RECORD_SCHEMA, follow_schema
from spark_bench.records.quick_check import compile_check
from spark_bench.records.schema import record_path

VALIDATOR = jsonschema.Draft202012Validator(RECORD_SCHEMA)
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            0,
            1,
            -1,
            1.0,
            0.0,
            100,
            100.5,
            10**400,
            'measured',
            'published',
            'detection',
            'detection_2x',
            'ab12cd',
            'a/b',
            'a\n',
            '..',
            '',
            'x' * 101,
            '2026-01-02T03:04:05Z',
        ]
    ),
)
ANYTHING = st.recursive(LEAF, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3))


def places(values, path=()):
    """The path of every value inside ``values``."""
    yield path
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(values, path, change):
    """A copy of ``values`` in which ``change`` was done to (container, key) at ``path``."""
    values = copy.deepcopy(values)
    container = values
    for key in path[:-1]:
        container = container[key]
    change(container, path[-1])
    return values


@pytest.fixture
def samples(make_record):
    """A measured and a published record as JSON values, all fields in use."""
    weights = {'path': 'a.pth', 'sha256': 'ab' * 32, 'config_hash': None}
    setting = {'schedule': '3x', 'resolution': 384, 'pretrain_epochs': None}
    unknown = dict.fromkeys(('config_hash', 'config', 'dataset', 'environment', 'started_at', 'wall_time_s'))
    artifacts = {'log': 'log.txt'}
    records = [
        make_record(task='detection_2x', weights=weights, setting=setting, artifacts=artifacts),
        make_record(origin='published', curves={}, source='a paper', verified=False, **unknown),
    ]
    return [json.loads(json.dumps(record.to_dict())) for record in records]


def test_sound_records_pass_alone_and_together(samples):
    assert follow_schema([]) and follow_schema(samples) and follow_schema(samples * 50)
    assert all(VALIDATOR.is_valid(values) for values in samples)


def test_whatever_is_left_out_of_a_record_both_checks_answer_alike(samples):
    for values in samples:
        for path in list(places(values))[1:]:
            less = changed(values, path, lambda container, key: container.pop(key))
            assert follow_schema([less]) == VALIDATOR.is_valid(less), path


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_put_in_a_record_never_passes_the_quick_check_alone(samples, data):
    values = data.draw(st.sampled_from(samples))
    path = data.draw(st.sampled_from(list(places(values))[1:]))
    value = data.draw(ANYTHING)
    other = changed(values, path, lambda container, key: container.__setitem__(key, value))
    if follow_schema([other]):
        assert VALIDATOR.is_valid(other)
    # Among sound ones it is found just the same.
    assert follow_schema([*samples, other, *samples]) == follow_schema([other])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_key_too_many_never_passes_the_quick_check_alone(samples, data):
    values = data.draw(st.sampled_from(samples))
    objects = [p for p in places(values) if isinstance(get(values, p), dict)]
    path = data.draw(st.sampled_from(objects))
    key = data.draw(st.sampled_from(['top1', 'box_ap', 'loss', 'source', 'verified', 'a b', '', 'x']) | st.text())
    other = changed(values, (*path, key), lambda container, name: container.__setitem__(name, data.draw(ANYTHING)))
    if follow_schema([other]):
        assert VALIDATOR.is_valid(other)


def get(values, path):
    for key in path:
        values = values[key]
    return values


@pytest.mark.parametrize('schema', [{'oneOf': []}, {'not': {'type': 'string'}}, {'if': {'required': ['a']}}])
def test_a_keyword_that_the_quick_check_does_not_know_is_refused(schema):
    with pytest.raises(NotImplementedError):
        compile_check(schema)


@pytest.mark.parametrize('number', ['1e999', '1' + '0' * 400, '-1e400'])
def test_a_number_too_large_for_a_float_is_refused_wherever_it_stands(tmp_path, make_record, number):
    path = write(make_record(metrics={'loss': 7.25}, curves={'loss': [[11, 0.125]]}, wall_time_s=3.5), tmp_path)
    text = path.read_text()
    for old in ('7.25', '11', '0.125', '3.5'):
        path.write_text(text.replace(old, number))
        with pytest.raises(InputError, match='0.json'):
            read(path)


def test_of_many_records_the_broken_one_is_named(tmp_path, make_record):
    for seed in range(300):
        write(make_record(seed=seed), tmp_path)
    path = record_path(tmp_path, *make_record(seed=271).identity)
    path.write_text(path.read_text().replace('12.5', '120.5'))
    with pytest.raises(InputError, match=r'271\.json: key "metrics.box_ap"'):
        load_all(tmp_path)


def test_records_without_curves_are_the_same_but_for_those(tmp_path, make_record):
    record = make_record()
    path = write(record, tmp_path)
    [light] = load_all(tmp_path, 'demo', curves=False)
    assert (light.metrics, dict(light.curves), light.identity) == (record.metrics, {}, record.identity)
    path.write_text(path.read_text().replace('1.25', '"high"'))
    with pytest.raises(InputError, match='curves'):
        load_all(tmp_path, curves=False)


def test_a_file_in_a_folder_too_shallow_for_a_record_is_named(tmp_path, make_record):
    path = write(make_record(), tmp_path)
    other = tmp_path / '0.json'
    path.rename(other)
    with pytest.raises(InputError, match='key "origin"'):
        read(other)
