"""What a cell shows where records are missing, failed, doubled or disagree, and which figures are marked as best."""

import dataclasses
import itertools
import statistics
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_bench.errors import InputError
from spark_bench.tables import Column, Table, TableSpec, build_table, to_csv, to_html, to_latex, to_markdown
from spark_bench.tables.noise import Sample, is_beyond_noise
from spark_bench.tables.suite import tables_of
from spark_bench.tables.text import delta_verdict

TOP1 = Column('classification', 'top1', 'top-1')
BOX = Column('detection', 'box_ap', 'box AP')
NAN = float('nan')


@pytest.fixture
def runs(make_record):
    """A function that makes a classification record a value for a method, seeds 0, 1, ..."""

    def make(method, *values, arch='resnet50', **fields):
        return [
            make_record('classification', method, seed, arch=arch, metrics={'top1': value}, **fields)
            for seed, value in enumerate(values)
        ]

    return make


@pytest.fixture
def quoted(runs):
    """A function that makes a published record, read in its source unless told otherwise."""

    def make(method, value, number=0, source='a page', verified=True, **fields):
        record = runs(method, value, origin='published', source=source, verified=verified, **fields)[0]
        return dataclasses.replace(record, seed=number)

    return make


def table_of(records, *methods, failed=(), columns=(TOP1,), **fields) -> Table:
    return build_table(records, TableSpec('t', '', columns, methods or None, **fields), failed)


def texts(table: Table) -> list[list[str]]:
    """The body of the Markdown table, cell by cell."""
    lines = to_markdown(table).splitlines()
    body = [line for line in lines if line.startswith('| ')][2:]
    return [[text.strip() for text in line.strip('|').split('|')] for line in body]


def best(table: Table) -> list[str]:
    return [row.method for row in table.rows for cell in row.cells if cell.best]


@settings(max_examples=200, deadline=None)
@given(
    a=st.tuples(st.floats(0, 100), st.floats(0.01, 20), st.integers(2, 30)),
    b=st.tuples(st.floats(0, 100), st.floats(0.01, 20), st.integers(2, 30)),
)
def test_beyond_the_noise_is_what_scipys_test_of_welch_says(a, b):
    from scipy.stats import ttest_ind_from_stats

    p = ttest_ind_from_stats(*a, *b, equal_var=False).pvalue
    if abs(p - 0.05) > 1e-9:
        assert is_beyond_noise(Sample(*a), Sample(*b)) == (p < 0.05)
    assert is_beyond_noise(Sample(*a), Sample(*b)) == is_beyond_noise(Sample(*b), Sample(*a))


def test_one_seed_tells_nothing_about_noise_and_neither_do_runs_that_never_vary():
    steady, single = Sample(50.0, 0.0, 3), Sample(60.0, None, 1)
    assert is_beyond_noise(steady, single) is is_beyond_noise(single, steady) is None
    assert is_beyond_noise(steady, Sample(50.0, 0.0, 2)) is False
    assert is_beyond_noise(steady, Sample(50.1, 0.0, 2)) is None, 'one figure, given again and again'
    assert is_beyond_noise(steady, Sample(50.1, 1e-9, 2)) is True
    assert is_beyond_noise(Sample(50.0, 1e-200, 3), Sample(60.0, 1e-200, 3)) is True
    # The mean of equal values may be off by a rounding, which is no difference.
    assert is_beyond_noise(Sample(0.1 + 0.2, 0.0, 3), Sample(0.3, 0.0, 2)) is False


def test_three_seeds_apart_from_the_noise_are_best_and_within_it_none_is(runs):
    apart = runs('scratch', 70.0, 70.2, 70.1) + runs('spark', 72.0, 72.2, 72.1) + runs('mae', 71.0, 71.1, 71.2)
    table = table_of(apart, 'scratch', 'spark', 'mae')
    assert best(table) == ['spark'] and 'Bold' in table.note
    assert [line[2] for line in texts(table)] == ['70.1 ± 0.1 (n=3)', '**72.1 ± 0.1 (n=3)**', '71.1 ± 0.1 (n=3)']
    # The second is as far from the first as before, but a third stands close to it.
    close = apart + runs('swav', 71.9, 72.2, 72.1)
    assert best(table_of(close, 'scratch', 'spark', 'mae', 'swav')) == []


def test_a_difference_within_the_noise_is_neither_better_nor_worse(runs, quoted):
    records = [
        *runs('scratch', 70.0, 72.0, 74.0),
        *runs('near', 71.0, 73.0, 75.0),
        *runs('far', 80.0, 82.0, 84.0),
        *runs('below', 50.0, 52.0, 54.0),
        *runs('once', 71.0),
        quoted('scratch', 60.0),
        quoted('mae', 61.0, verified=False),
    ]
    table = table_of(records, 'scratch', 'near', 'far', 'below', 'once', 'mae')
    verdicts = {row.label: delta_verdict(row.cells[0], TOP1) for row in table.rows if row.method != 'scratch'}
    assert verdicts == {
        'near': '',
        'far': 'better',
        'below': 'worse',
        'once': 'worse',
        'mae': '',
        'mae (published) †': '',
    }


@pytest.mark.parametrize('values', [(70.0, 70.2, 70.1), (0.1, 0.1, 0.1), (1e-3, 99.0), (33.3, 33.300000000000004)])
def test_mean_and_deviation_are_exact(runs, values):
    [cell] = table_of(runs('spark', *values), 'spark').cells
    assert cell.value == pytest.approx(float(statistics.mean(map(Fraction, values))), rel=1e-15)
    assert cell.std == pytest.approx(statistics.stdev(map(Fraction, values)), rel=1e-15)
    assert (cell.std == 0) == (len(set(values)) == 1)


@pytest.mark.parametrize('values', [(72.0,), (72.0, 72.0), (72.0, 72.0, 72.0)])
def test_ties_have_no_best(runs, values):
    records = runs('scratch', *values) + runs('spark', *values) + runs('mae', *(v - 9 for v in values))
    assert best(table_of(records, 'scratch', 'spark', 'mae')) == []


def test_with_one_seed_nothing_is_best_however_far_ahead(runs):
    lone = runs('scratch', 10.0) + runs('spark', 90.0)
    assert best(table_of(lone)) == []
    # Nor against a competitor of one seed, whose noise is as unknown.
    assert best(table_of(runs('scratch', 10.0) + runs('spark', 90.0, 90.1, 90.2))) == []


def test_a_lone_figure_is_not_the_best_of_anything(runs):
    assert best(table_of(runs('spark', 70.0, 70.1, 70.2), 'scratch', 'spark')) == []


def test_best_is_of_the_backbone_or_of_the_whole_table(runs):
    records = []
    for arch, base in (('resnet50', 70.0), ('swin_base', 80.0)):
        for method, gain in (('scratch', 0), ('spark', 5)):
            records += runs(method, *(base + gain + noise for noise in (0, 0.1, 0.2)), arch=arch)
    marked = [(row.arch, row.method) for row in table_of(records).rows if row.cells[0].best]
    assert marked == [('resnet50', 'spark'), ('swin_base', 'spark')]
    marked = [(row.arch, row.method) for row in table_of(records, best_of='table').rows if row.cells[0].best]
    assert marked == [('swin_base', 'spark')]


def test_published_figures_neither_carry_the_mark_nor_take_it_away(runs, quoted):
    measured = runs('scratch', 70.0, 70.1, 70.2) + runs('spark', 75.0, 75.1, 75.2)
    table = table_of(measured + [quoted('spark', 99.0), quoted('scratch', 1.0)])
    marked = [(row.origin, row.method) for row in table.rows if row.cells[0].best]
    assert marked == [('measured', 'spark')]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_table_does_not_depend_on_the_order_of_the_records(runs_session, data):
    values = st.lists(st.floats(0, 100) | st.none(), min_size=1, max_size=4)
    records = []
    for arch, method in itertools.product(('resnet50', 'swin_base'), ('scratch', 'spark')):
        records += runs_session(method, *data.draw(values), arch=arch)
    shuffled = data.draw(st.permutations(records))
    assert to_csv(table_of(shuffled)) == to_csv(table_of(records))


@pytest.fixture(scope='module')
def runs_session(make_record):
    def make(method, *values, arch):
        return [
            make_record('classification', method, seed, arch=arch, metrics={'top1': value})
            for seed, value in enumerate(values)
        ]

    return make


@pytest.mark.parametrize('gap', [None, NAN])
def test_a_nan_makes_a_cell_incomplete_and_takes_it_out_of_the_competition(runs, gap):
    records = runs('scratch', 70.0, 70.1, 70.2) + runs('spark', 90.0, gap, 90.1) + runs('mae', 60.0, 60.1, 60.2)
    table = table_of(records, 'scratch', 'spark', 'mae')
    assert table.rows[1].cells[0].status == 'incomplete' and best(table) == ['scratch']
    assert texts(table)[1][2:] == ['– (2 of 3 seeds)', '']


def test_neither_is_it_where_a_suite_defines_no_tables(make_record):
    records = [make_record(seed=seed, metrics={'box_ap': 50.0 + seed}) for seed in (0, 1)]
    one = records[0]
    [table] = tables_of(records, None, [(one.task, one.arch, one.method, 2, 'no memory')])
    cells = [cell for row in table.rows for cell in row.cells]
    assert 'failed' in {cell.status for cell in cells} and not any(cell.value for cell in cells)


def test_a_failed_run_is_shown_with_its_reason_and_never_averaged_over(runs):
    records = runs('scratch', 70.0, 70.1) + runs('spark', 90.0, 90.1)
    failed = [('classification', 'resnet50', 'spark', 2, 'no memory'), ('detection', 'resnet50', 'mae', 0, 'killed')]
    table = table_of(records, failed=failed, columns=(TOP1, BOX))
    cells = {row.method: row.cells for row in table.rows}
    spark = cells['spark'][0]
    assert (spark.value, spark.std, spark.delta, spark.n, spark.seeds) == (None, None, None, 2, 3)
    assert [cell.status for cell in cells['mae']] == ['missing', 'failed']
    text = to_markdown(table)
    assert '| failed (2 of 3 seeds) |' in text and '| resnet50 | mae | – |  | failed |  |' in text
    assert '- resnet50 spark classification, seed 2: no memory' in text
    assert 'seed 0: killed' in to_csv(table)
    assert not any(cell.best for cell in table.cells)


def test_runs_that_differ_in_more_than_seeds_and_weights_have_no_mean_and_the_table_says_in_what(runs):
    def recipe(epochs=4, label_seed=0):
        data = {'fraction': 0.1, 'fraction_seed': label_seed}
        return {'train_cfg': {'max_epochs': epochs}, 'train_dataloader': {'dataset': data}}

    def setup(record, number, **fields):
        return dataclasses.replace(record, setup_hash=f'{number}' * 16, **fields)

    scratch = [setup(record, 1, recipe=recipe()) for record in runs('scratch', 70.0, 70.1, 70.2)]
    spark = runs('spark', 90.0, 90.1, 90.2)
    # Of another pretraining, and of another draw of the labels.
    alike = [setup(record, seed + 2, recipe=recipe(label_seed=seed)) for seed, record in enumerate(spark)]
    table = table_of(scratch + alike)
    assert best(table) == ['spark'] and table.rows[1].cells[0].status == 'complete'
    longer = setup(alike[2], 7, recipe=recipe(epochs=8))
    other_data = setup(alike[1], 8, dataset={**alike[1].dataset, 'sha256': 'ef' * 32})
    for unlike, said in ((longer, 'seeds 0 and 2, train_cfg.max_epochs 4, and 8'), (other_data, 'other data')):
        records = [unlike, *(record for record in alike if record.seed != unlike.seed)]
        table = table_of(scratch + records)
        cell = table.rows[1].cells[0]
        assert (cell.value, cell.delta, cell.status, cell.n) == (None, None, 'mixed', 3) and not best(table)
        assert texts(table)[1][2:] == ['mixed (3 of 3 seeds)', ''] and 'spark classification: seeds 0 and' in table.note
        for shown in (
            to_markdown(table).replace('\\', ''),
            to_csv(table),
            to_html(table),
            to_latex(table).replace('\\', ''),
        ):
            assert said in shown, shown
    # What has no recipe tells of none.
    unknown = dataclasses.replace(longer, recipe=None)
    assert table_of([*alike[:2], unknown]).rows[0].cells[0].status == 'complete'


def test_rows_of_other_data_have_no_difference_and_no_mark(runs):
    scratch, spark, mae = (
        runs(name, value, value + 0.1) for name, value in (('scratch', 10), ('spark', 40), ('mae', 20))
    )
    elsewhere = [dataclasses.replace(r, dataset={**r.dataset, 'sha256': 'ef' * 32}) for r in spark]
    assert best(table_of([*scratch, *spark, *mae])) == ['spark']
    table = table_of([*scratch, *elsewhere, *mae])
    assert {row.method: row.cells[0].delta for row in table.rows} == {'scratch': None, 'spark': None, 'mae': 10.0}
    assert not best(table) and 'No Δ where a row read other data than scratch' in table.note


def test_a_failure_that_was_repeated_with_success_is_no_failure(runs):
    records = runs('spark', 90.0, 90.1)
    failed = [('classification', 'resnet50', 'spark', 1, 'killed')]
    cell = table_of(records, failed=failed).rows[0].cells[0]
    assert (cell.status, cell.n, cell.value) == ('complete', 2, pytest.approx(90.05))


def test_backbones_and_methods_that_are_listed_are_shown_as_missing_and_others_left_out(runs):
    records = runs('spark', 80.0) + runs('mae', 81.0) + runs('spark', 82.0, arch='resnet18')
    table = table_of(records, 'scratch', 'spark', archs=('resnet101', 'resnet50'))
    assert texts(table) == [
        ['resnet101', 'scratch', '–', ''],
        ['resnet101', 'spark', '–', ''],
        ['resnet50', 'scratch', '–', ''],
        ['resnet50', 'spark', '80.0', ''],
    ]
    nothing = table_of([], 'spark', archs=('resnet50',))
    assert texts(nothing) == [['resnet50', 'spark', '–', '']]


def test_what_is_published_stands_alone_until_anything_of_the_table_is_measured(runs, quoted):
    published = [quoted('scratch', 70.0), quoted('spark', 72.0), quoted('spark', 75.0, arch='resnet101')]
    archs = ('resnet50', 'resnet101')
    table = table_of(published, 'scratch', 'spark', archs=archs)
    assert [(row.arch, row.label) for row in table.rows] == [
        ('resnet50', 'scratch (published)'),
        ('resnet50', 'spark (published)'),
        ('resnet101', 'spark (published)'),
    ]
    table = table_of(published + runs('spark', 71.0), 'scratch', 'spark', archs=archs)
    assert [(row.arch, row.label, row.cells[0].status) for row in table.rows if row.origin == 'measured'] == [
        ('resnet50', 'scratch', 'missing'),
        ('resnet50', 'spark', 'complete'),
        ('resnet101', 'scratch', 'missing'),
        ('resnet101', 'spark', 'missing'),
    ]


def test_without_a_list_of_methods_one_that_was_only_published_has_no_measured_row(runs, quoted):
    table = table_of(runs('spark', 71.0) + [quoted('mae', 70.0)])
    assert [row.label for row in table.rows] == ['spark', 'mae (published)']


def test_only_pairs_that_are_expected_are_missing_but_any_that_was_run_is_shown(runs):
    records = runs('spark', 80.0) + runs('mae', 70.0, arch='swin_base')
    pairs = [['resnet50', 'spark'], ['swin_base', 'simmim'], ['vit_base', 'mae']]
    table = table_of(records, 'spark', 'mae', 'simmim', archs=['resnet50', 'swin_base', 'vit_base'], pairs=pairs)
    assert [(row.arch, row.method, row.cells[0].status) for row in table.rows] == [
        ('resnet50', 'spark', 'complete'),
        ('swin_base', 'mae', 'complete'),
        ('swin_base', 'simmim', 'missing'),
        ('vit_base', 'mae', 'missing'),
    ]


def test_a_variant_of_a_task_is_another_column(make_record):
    records = [
        make_record('detection_1x', 'spark', metrics={'box_ap': 40.0}),
        make_record('detection_2x', 'spark', metrics={'box_ap': 43.0}),
    ]
    columns = [('detection_1x', 'box_ap', '1x'), ('detection_2x', 'box_ap', '2x'), ('detection', 'box_ap', 'plain')]
    assert texts(table_of(records, 'spark', columns=columns))[0][2::2] == ['40.0', '43.0', '–']


def test_an_unverified_figure_makes_its_difference_no_claim(runs, quoted):
    records = [quoted('scratch', 80.0), quoted('spark', 84.0, verified=False), quoted('mae', 83.0)]
    table = table_of(records, 'scratch', 'spark', 'mae')
    assert [line[1:] for line in texts(table)] == [
        ['scratch (published)', '80.0 \\[1\\]', ''],
        ['spark (published) †', '84.0† \\[1\\]', '+4.0†'],
        ['mae (published)', '83.0 \\[1\\]', '+3.0'],
    ]
    # And as the baseline it spoils the differences of all others.
    table = table_of([quoted('scratch', 80.0, verified=False), *records[1:]], 'scratch', 'spark', 'mae')
    assert [line[3] for line in texts(table)] == ['', '+4.0†', '+3.0†']


def test_a_row_of_which_one_figure_is_verified_carries_the_dagger_at_the_other_alone(quoted, make_record):
    box = make_record(
        'detection',
        'spark',
        metrics={'box_ap': 51.2},
        arch='resnet50',
        origin='published',
        source='a paper',
        verified=False,
    )
    row = table_of([quoted('spark', 84.0), box], columns=(TOP1, BOX)).rows[0]
    assert row.label == 'spark (published)' and [cell.verified for cell in row.cells] == [True, False]


def test_of_two_sources_the_one_that_was_read_counts_and_both_are_named_where_they_agree(quoted):
    cell = table_of([quoted('spark', 51.0, verified=False), quoted('spark', 50.0, 1, 'B')]).rows[0].cells[0]
    assert (cell.value, cell.verified, cell.sources, cell.n) == (50.0, True, ('B',), 1)
    cell = table_of([quoted('spark', 50.0, 0, 'A'), quoted('spark', 50.0, 1, 'B')]).rows[0].cells[0]
    assert (cell.value, cell.sources, cell.std) == (50.0, ('A', 'B'), None)


def test_two_published_figures_for_one_cell_are_refused_by_name_and_never_averaged(quoted):
    with pytest.raises(InputError) as caught:
        table_of([quoted('spark', 50.0), quoted('spark', 52.3, 1)])
    assert 'published/demo/classification/resnet50/spark/0 and' in str(caught.value) and 'spark/1' in str(caught.value)


def test_the_same_record_twice_is_refused(runs):
    [record] = runs('spark', 80.0)
    with pytest.raises(InputError, match='two records of measured/demo/classification/resnet50/spark/0'):
        table_of([record, dataclasses.replace(record, metrics={'top1': 81.0})])


def test_a_specification_takes_lists_as_config_files_have_them_and_refuses_a_wrong_scope():
    spec = TableSpec('a', 'b', [['classification', 'top1', 'top-1']], ['spark'], ['resnet50'], pairs=[['a', 'b']])
    assert spec == TableSpec('a', 'b', (TOP1,), ('spark',), ('resnet50',), pairs=(('a', 'b'),))
    with pytest.raises(ValueError, match="best_of is 'row'"):
        TableSpec('a', 'b', (TOP1,), best_of='row')
