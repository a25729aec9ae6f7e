"""Two sets of records side by side, and merging what several people measured."""

import csv
import dataclasses
import io
import itertools

import pytest

from spark_bench import commands
from spark_bench.errors import InputError
from spark_bench.records import load_all, write
from spark_bench.records.compare import load_set
from spark_bench.tables.differences import compare


@pytest.fixture
def runs(make_record):
    """A function that makes a detection record a value for a method, seeds 0, 1, ..."""

    def make(method, *values, **fields):
        return [
            make_record(method=method, seed=seed, metrics={'box_ap': value, 'mask_ap': 30.0}, **fields)
            for seed, value in enumerate(values)
        ]

    return make


def verdicts(a, b, metric='box_ap'):
    return {d.name: (d.delta, d.verdict) for d in compare(a, b).rows if d.column.metric == metric}


def test_a_difference_is_told_from_noise_and_noise_from_one_seed(runs):
    same = runs('byol', 41.0)
    a = runs('scratch', 40.0, 40.1, 40.2) + runs('spark', 40.0, 42.0, 44.0) + runs('mae', 40.0) + same
    b = runs('scratch', 41.0, 41.1, 41.2) + runs('spark', 41.0, 43.0, 45.0) + runs('mae', 42.0, 42.1) + same
    found = {name[-1]: (round(delta, 9), verdict) for name, (delta, verdict) in verdicts(a, b).items()}
    assert found == {
        'scratch': (1.0, 'beyond the noise'),
        'spark': (1.0, 'within the noise'),
        'mae': (2.05, 'noise unknown'),
        'byol': (0.0, 'equal'),
    }


def test_what_one_set_lacks_or_did_not_finish_has_no_difference(runs):
    a = runs('scratch', 40.0) + runs('spark', 40.0, None, 41.0)
    b = runs('mae', 41.0) + runs('spark', 42.0, 42.1, 42.2)
    assert {name[-1]: rest for name, rest in verdicts(a, b).items()} == {
        'scratch': (None, 'only in A'),
        'mae': (None, 'only in B'),
        'spark': (None, 'incomplete'),
    }
    line = '| spark | box_ap | – (2 of 3 seeds) | 42.1 ± 0.1 (n=3) |  | incomplete | same |'
    assert line in compare(a, b).to_markdown()


def test_other_configurations_are_said(runs):
    other = runs('spark', 42.0, config_hash='99' * 32)
    assert {d.configs for d in compare(runs('spark', 40.0), other).rows} == {'other'}


def test_in_which_values_two_recipes_differ_is_said_below_the_table(runs):
    ours, theirs = ({'model': {'smoothing': value}, 'global_batch': 8} for value in (0.1, 0.2))
    a, b = runs('spark', 40.0, recipe=ours), runs('spark', 42.0, config_hash='99' * 32, recipe=theirs)
    note = 'detection convnext_atto spark: model.smoothing 0.1, now 0.2'
    told = compare(a, b)
    assert told.notes[1:] == [note] and note in told.to_markdown()
    for other in (a, runs('spark', 42.0, config_hash='99' * 32)):  # the same, and one that keeps no recipe
        assert len(compare(a, other).notes) == 1


def seeded(make_record, *seeds, setup=None, recipe='ab'):
    """Records whose hash holds the seed, as that of a real run does."""
    return [
        make_record(seed=seed, config_hash=f'{recipe}{seed:04d}', **({'setup_hash': setup} if setup else {}))
        for seed in seeds
    ]


@pytest.mark.parametrize(
    'a, b, setups, said',
    [
        ((0, 1), (0, 1, 2), ('5e70aa', '5e70aa'), 'same'),
        ((0,), (1,), ('5e70aa', '5e70aa'), 'same'),
        ((0,), (0,), ('5e70aa', '5e70bb'), 'other'),
        ((0,), (1,), ('5e70aa', '5e70bb'), 'other'),
        ((0, 1), (0, 1, 2), (None, None), 'same'),
        ((0, 1), (2, 3), (None, None), 'other seeds'),
        ((0, 1), (1, 2), ('5e70aa', None), 'same'),
        ((0,), (1,), (None, '5e70aa'), 'other seeds'),
    ],
)
def test_seeds_are_no_configuration(make_record, a, b, setups, said):
    sets = [seeded(make_record, *seeds, setup=setup) for seeds, setup in zip((a, b), setups, strict=True)]
    for pair in (sets, sets[::-1]):
        assert {d.configs for d in compare(*pair).rows} == {said}


def test_another_recipe_is_another_configuration_whatever_the_seeds(make_record):
    a = seeded(make_record, 0, 1)
    assert {d.configs for d in compare(a, seeded(make_record, 1, 2, recipe='cd')).rows} == {'other'}
    mixed = [*a, *seeded(make_record, 2, setup='5e70aa')]
    assert {d.configs for d in compare(mixed, seeded(make_record, 0, 1, 2)).rows} == {'same'}


def test_records_of_before_there_was_a_setup_hash_are_read_as_they_are(make_record, tmp_path):
    old, new = make_record(), make_record(seed=1, setup_hash='5e70aa')
    for record in (old, new):
        write(record, tmp_path)
    assert 'setup_hash' not in old.to_dict()
    assert [record.setup_hash for record in load_all(tmp_path)] == [None, '5e70aa']


def test_two_suites_match_by_cell_where_each_set_has_one_and_by_suite_where_either_has_several(runs):
    mine, theirs = runs('spark', 40.0, suite='mine'), runs('spark', 41.0, suite='theirs')
    assert list(verdicts(mine, theirs).values()) == [(1.0, 'noise unknown')]
    differences = compare(mine + theirs, theirs)
    assert differences.names == ['suite', 'task', 'backbone', 'method']
    assert {d.name[0]: d.verdict for d in differences.rows} == {'mine': 'only in A', 'theirs': 'equal'}


def test_measured_beside_published_and_what_is_not_verified_is_no_claim(runs):
    measured = runs('spark', 40.0, 40.1) + runs('mae', 40.0, 40.1)
    published = [
        *runs('spark', 45.0, origin='published', source='a page', verified=False),
        *runs('mae', 45.0, origin='published', source='a page', verified=True),
    ]
    found = {name[-1]: verdict for name, (_, verdict) in verdicts(measured, published).items()}
    assert found == {'spark': 'not verified', 'mae': 'noise unknown'}
    text = compare(measured, published).to_markdown()
    assert '| 45.0† | +5.0† | not verified |' in text and text.count('45.0†') == 1
    [line] = [
        line
        for line in csv.DictReader(io.StringIO(compare(measured, published).to_csv()))
        if line['method'] == 'spark' and line['metric'] == 'box_ap'
    ]
    assert (line['b_mark'], line['delta_mark'], line['a_mark']) == ('†', '†', '')
    assert float(line['delta']) == pytest.approx(4.95)


def test_what_both_quote_alike_is_not_listed_beside_measurements(runs):
    quoted = runs('mae', 45.0, origin='published', source='a page', verified=True)
    differences = compare(runs('spark', 40.0) + quoted, runs('spark', 40.0) + quoted)
    assert {d.name for d in differences.rows} == {('measured', 'detection', 'convnext_atto', 'spark')}


def test_metrics_are_those_of_tables_or_those_asked_for(make_record):
    a = [make_record(metrics={'box_ap': 1.0, 'box_ap_small': 2.0}), make_record('pretrain', metrics={'loss': 0.5})]
    names = [(d.column.task, d.column.metric) for d in compare(a, a).rows]
    assert names == [('detection', 'box_ap'), ('pretrain', 'loss')]
    assert [d.column.metric for d in compare(a, a, ['box_ap_small']).rows] == ['box_ap_small']


def test_the_order_of_records_does_not_matter(runs):
    a, b = runs('spark', 40.0, 40.3, 41.0), runs('spark', 42.0, 42.5)
    assert len({compare(order, b).to_csv() for order in itertools.permutations(a)}) == 1


def test_a_set_is_a_results_folder_a_folder_inside_one_or_a_record(tmp_path, runs):
    records = runs('spark', 40.0, 41.0) + runs('mae', 40.0, suite='other')
    paths = [write(record, tmp_path) for record in records]
    (tmp_path / 'tables').mkdir()
    (tmp_path / 'tables' / 'notes.json').write_text('{}')  # no record, and no part of the set
    assert len(load_set(tmp_path)) == 3
    assert len(load_set(tmp_path / 'measured' / 'demo')) == len(load_set(paths[0].parent)) == 2
    assert load_set(paths[2]) == [records[2]]
    for nothing in (tmp_path / 'nowhere', tmp_path / 'published'):
        with pytest.raises(InputError, match='no record in .*: name a results folder'):
            load_set(nothing)


def run(capsys, *arguments):
    status = commands.main(['compare', *map(str, arguments)])
    return status, *capsys.readouterr()


def test_the_command_prints_or_writes_the_comparison(tmp_path, runs, capsys):
    for name, values in (('a', (40.0, 40.1, 40.2)), ('b', (41.0, 41.1, 41.2))):
        for record in runs('spark', *values):
            write(record, tmp_path / name)
    sets = tmp_path / 'a', tmp_path / 'b'
    status, out, _ = run(capsys, *sets)
    assert status == 0 and '40.1 ± 0.1 (n=3)' in out and 'beyond the noise' in out
    for name, suffix, part in (('markdown', '.md', '| +1.0 |'), ('csv', '.csv', 'beyond the noise,same')):
        assert part in run(capsys, *sets, '--format', name)[1]
        assert run(capsys, *sets, '--output', tmp_path / f'x{suffix}')[0] == 0
        assert part in (tmp_path / f'x{suffix}').read_text()
    status, _, error = run(capsys, *sets, '--output', tmp_path / 'x.tex')
    assert status == 2 and error.count('\n') == 1 and '--format' in error and not (tmp_path / 'x.tex').exists()


def test_merging_gathers_all_records_once_and_again_changes_nothing(tmp_path, runs, capsys):
    mine, theirs = runs('spark', 40.0, 40.1), runs('mae', 41.0)
    for record in mine:
        write(record, tmp_path / 'a')
    for record in [*theirs, mine[0]]:
        write(record, tmp_path / 'b')
    for _ in range(2):
        status, out, error = run(capsys, tmp_path / 'a', tmp_path / 'b', '--merge', tmp_path / 'all')
        assert status == 0 and error.startswith('merged: 3 records') and 'merged' not in out
        assert sorted(load_all(tmp_path / 'all'), key=lambda r: r.identity) == sorted(
            [*mine, *theirs], key=lambda r: r.identity
        )
    assert load_all(tmp_path / 'all')[0].curves  # whole records, not what a table needs of them


def test_a_repetition_with_other_figures_is_named_and_the_first_is_kept(tmp_path, runs, capsys):
    write(runs('spark', 40.0)[0], tmp_path / 'a')
    write(runs('spark', 40.5)[0], tmp_path / 'b')
    status, _, told = run(capsys, tmp_path / 'a', tmp_path / 'b', '--merge', tmp_path / 'all')
    name = 'measured/demo/detection/convnext_atto/spark/0'
    assert status == 0 and f'repeated: {name}: box_ap 40.0 and 40.5 in A and B; kept: A' in told
    assert load_all(tmp_path / 'all')[0].metrics['box_ap'] == 40.0


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'config_hash': '99' * 32}, 'other config in A and B'),
        ({'weights': {'path': 'x', 'sha256': 'ab' * 32, 'config_hash': '98' * 32}}, 'other weights in A and B'),
        ({'config_hash': '99' * 32, 'dataset': None}, 'other config and data in A and B'),
    ],
)
def test_a_conflict_is_named_with_what_differs_and_nothing_is_written(tmp_path, runs, capsys, change, named):
    first, second = runs('spark', 40.0, 41.0)
    if 'dataset' in change:
        change['dataset'] = {**first.dataset, 'sha256': 'ee' * 32}
    for record in (first, second):
        write(record, tmp_path / 'a')
    write(dataclasses.replace(first, **change), tmp_path / 'b')
    status, _, error = run(capsys, tmp_path / 'a', tmp_path / 'b', '--merge', tmp_path / 'all')
    assert status == 1 and f'conflict: measured/demo/detection/convnext_atto/spark/0: {named}' in error
    assert '1 in conflict, nothing was merged' in error and not (tmp_path / 'all').exists()


def test_a_conflict_with_what_the_folder_holds_already_is_named_too(tmp_path, runs, capsys):
    write(runs('spark', 40.0)[0], tmp_path / 'a')
    write(runs('mae', 40.0)[0], tmp_path / 'b')
    write(runs('mae', 40.0, config_hash='99' * 32)[0], tmp_path / 'all')
    status, _, error = run(capsys, tmp_path / 'a', tmp_path / 'b', '--merge', tmp_path / 'all')
    assert status == 1 and f'mae/0: other config in {tmp_path / "all"} and B' in error
    assert len(load_all(tmp_path / 'all')) == 1


def test_published_figures_that_disagree_are_a_conflict(tmp_path, runs, capsys):
    for name, value in (('a', 45.0), ('b', 45.1)):
        write(runs('mae', value, origin='published', source='a page', verified=True)[0], tmp_path / name)
    status, _, error = run(capsys, tmp_path / 'a', tmp_path / 'b', '--merge', tmp_path / 'all')
    assert status == 1 and 'mae/0: other figures or sources in A and B' in error
