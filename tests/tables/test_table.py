"""The table against figures worked out by hand."""

import csv
import io
import itertools
import json
import random
import time

import pytest

from spark_bench import commands
from spark_bench.errors import InputError
from spark_bench.records import write
from spark_bench.records.schema import record_path
from spark_bench.tables import Table, TableSpec, build_table, table_of_suite, to_csv, to_grid, to_html, to_markdown
from spark_bench.tables.build import METHODS, order_methods
from spark_bench.tables.command import print_tables
from spark_bench.tables.text import delta_verdict

TOP1 = ('classification', 'top1', 'top-1')
BOX = ('detection', 'box_ap', 'box AP')


@pytest.fixture
def top1(make_record):
    """A function that makes a classification record a value, seeds 0, 1, ...; 'skip' leaves it out."""

    def make(method, *values, arch='convnext_atto', **fields):
        return [
            make_record('classification', method, seed, arch=arch, metrics={} if v == 'skip' else {'top1': v}, **fields)
            for seed, v in enumerate(values)
        ]

    return make


def table_of(records, methods, columns, baseline='scratch', failed=(), **fields) -> Table:
    return build_table(records, TableSpec('', '', columns, methods, baseline=baseline, **fields), failed)


def cells(table: Table) -> dict:
    return {(row.arch, row.method): row.cells[0] for row in table.rows}


def test_three_seeds_give_mean_sample_deviation_and_difference(top1):
    # Deviations by hand: 2, 4, 9 around 5 give (9 + 1 + 16) / 2 = 13; 10, 11, 12 give 1.
    records = top1('scratch', 2.0, 4.0, 9.0) + top1('spark', 10.0, 11.0, 12.0)
    found = cells(table_of(records, methods=('scratch', 'spark'), columns=[TOP1]))
    scratch, spark = found['convnext_atto', 'scratch'], found['convnext_atto', 'spark']
    assert (scratch.value, scratch.std, scratch.n, scratch.delta) == (5.0, pytest.approx(13**0.5), 3, None)
    assert (spark.value, spark.std, spark.n, spark.delta) == (11.0, 1.0, 3, 6.0)
    # 6 apart with a standard error of 2.16 and 2.3 degrees of freedom: t = 2.78, short of 3.8.
    assert (scratch.best, spark.best, spark.delta_beyond_noise) == (False, False, False)


def test_one_seed_has_no_deviation(top1):
    table = table_of(top1('scratch', 40.25) + top1('spark', 38.0), methods=('scratch', 'spark'), columns=[TOP1])
    found = cells(table)
    assert found['convnext_atto', 'scratch'].std is None
    assert found['convnext_atto', 'spark'].delta == -2.25
    text = to_markdown(table)
    assert '| convnext_atto | scratch | 40.2 |  |' in text
    assert '| convnext_atto | spark | 38.0 | −2.2 |' in text
    assert '±' not in text and 'One seed' in text


@pytest.mark.parametrize('gap', [None, 'skip', float('nan')])
def test_a_cell_of_which_a_seed_lacks_the_metric_is_never_a_partial_mean(top1, gap):
    records = top1('scratch', 2.0, 4.0) + top1('spark', 10.0, gap, 12.0)
    table = table_of(records, methods=('scratch', 'spark'), columns=[TOP1])
    spark = cells(table)['convnext_atto', 'spark']
    assert (spark.value, spark.std, spark.delta, spark.best) == (None, None, None, False)
    assert (spark.n, spark.seeds) == (2, 3)
    assert '| spark | – (2 of 3 seeds) |  |' in to_markdown(table)


def test_a_method_without_records_keeps_its_row_and_a_missing_baseline_leaves_no_difference(top1):
    records = top1('spark', 50.0)
    table = table_of(records, methods=METHODS, columns=[TOP1, BOX])
    assert [row.method for row in table.rows] == list(METHODS)
    spark = table.rows[METHODS.index('spark')]
    assert (spark.cells[0].value, spark.cells[0].delta) == (50.0, None)
    others = [row.cells[0] for row in table.rows if row.method != 'spark'] + [row.cells[1] for row in table.rows]
    assert {(cell.value, cell.n, cell.seeds) for cell in others} == {(None, 0, 0)}
    assert '| convnext_atto | scratch | – |  | – |  |' in to_markdown(table)


def test_figures_that_print_alike_are_neither_best_and_differ_by_plus_nothing(top1):
    # 41.21 and 41.18 are told apart by seeds this quiet, but not by who reads the table.
    records = top1('scratch', 41.20, 41.21, 41.22) + top1('spark', 41.1799, 41.18, 41.1801)
    table = table_of(records + top1('no_sparse', 40.0, 40.1, 40.2), ('scratch', 'spark', 'no_sparse'), [TOP1])
    assert [row.cells[0].best for row in table.rows] == [False, False, False]
    assert table.rows[1].cells[0].delta_beyond_noise is True
    assert '| spark | 41.2 ± 0.0 (n=3) | +0.0 |' in to_markdown(table)


def test_of_a_loss_the_lowest_is_best_and_the_arrow_points_down(make_record):
    values = {'spark': (0.4, 0.41), 'no_sparse': (0.6, 0.61)}
    records = [
        make_record('pretrain', method, seed, metrics={'loss': value})
        for method in values
        for seed, value in enumerate(values[method])
    ]
    table = table_of(records, ('spark', 'no_sparse'), [('pretrain', 'loss', 'loss')], baseline='spark')
    assert [row.cells[0].best for row in table.rows] == [True, False]
    text = to_markdown(table)
    assert '**0.405 ± 0.007 (n=2)**' in text
    assert 'loss ↓' in text and '| 0.605 ± 0.007 (n=2) | +0.200 |' in text and 'difference from spark' in text


@pytest.mark.parametrize('metric', ['images_per_s', 'matrix_share', 'bandwidth_gb_per_s'])
def test_of_rates_and_shares_the_highest_is_best(make_record, metric):
    records = [
        make_record('profile', method, seed, metrics={metric: value + seed / 100})
        for method, value in (('reference', 0.4), ('packed', 0.8))
        for seed in range(3)
    ]
    table = table_of(records, ('reference', 'packed'), [('profile', metric, 'speed')], baseline='reference')
    assert table.columns[0].heading == 'speed ↑'
    assert [row.method for row in table.rows if row.cells[0].best] == ['packed']
    assert delta_verdict(table.rows[1].cells[0], table.columns[0]) == 'better'


@pytest.mark.parametrize('metric', ['neighbours', 'penalty', 'epoch_best_ema', 'update_best', 'converged'])
def test_of_what_was_chosen_nothing_is_best_or_worse(make_record, metric):
    records = [
        make_record('linear', method, seed, metrics={metric: value + seed / 100})
        for method, value in (('scratch', 10.0), ('spark', 20.0))
        for seed in range(3)
    ]
    table = table_of(records, ('scratch', 'spark'), [('linear', metric, 'chosen')])
    cell, column = table.rows[1].cells[0], table.columns[0]
    assert column.heading == 'chosen' and cell.delta_beyond_noise and not any(c.best for c in table.cells)
    assert delta_verdict(cell, column) == '' and 'is better' not in to_html(table)


def test_of_average_recall_the_highest_is_best(make_record):
    records = [
        make_record(method=method, seed=seed, metrics={'box_ar100': value + seed / 10})
        for method, value in (('scratch', 40.0), ('spark', 50.0))
        for seed in range(3)
    ]
    table = table_of(records, methods=('scratch', 'spark'), columns=[('detection', 'box_ar100', 'recall')])
    assert table.columns[0].heading == 'recall ↑'
    assert [row.method for row in table.rows if row.cells[0].best] == ['spark']


def test_a_loss_that_ran_away_is_as_wide_as_any_other(make_record):
    losses = {'scratch': 2.0, 'spark': 3.4e38}
    records = [make_record('pretrain', method, metrics={'loss': loss}) for method, loss in losses.items()]
    table = table_of(records, methods=('scratch', 'spark'), columns=[('pretrain', 'loss', 'loss')])
    assert '| 2.000 |' in to_markdown(table) and '| 3.4e+38 | +3.4e+38 |' in to_markdown(table)


@pytest.mark.parametrize('name', ['../outside', 'a/b', '.hidden', 'a b', 'a\n'])
def test_a_table_whose_name_no_file_can_have_is_refused(name):
    with pytest.raises(ValueError, match='name is'):
        TableSpec(name, '', [TOP1])


@pytest.mark.parametrize('field', ['columns', 'methods', 'archs', 'pairs'])
def test_a_word_in_place_of_a_list_is_refused(field):
    with pytest.raises(ValueError, match=f'{field} is .spark.'):
        TableSpec(**{'name': 'table', 'title': '', 'columns': [TOP1], field: 'spark'})


def test_backbones_are_grouped_and_each_has_its_own_baseline(top1):
    records = (
        top1('scratch', 10.0, arch='resnet10t')
        + top1('spark', 15.0, arch='resnet10t')
        + top1('scratch', 20.0)
        + top1('spark', 22.0)
    )
    random.Random(0).shuffle(records)
    table = table_of(records, methods=('scratch', 'spark'), columns=[TOP1])
    assert [(row.arch, row.method, row.cells[0].value, row.cells[0].delta) for row in table.rows] == [
        ('convnext_atto', 'scratch', 20.0, None),
        ('convnext_atto', 'spark', 22.0, 2.0),
        ('resnet10t', 'scratch', 10.0, None),
        ('resnet10t', 'spark', 15.0, 5.0),
    ]


def test_the_order_of_the_records_does_not_matter(top1):
    records = top1('scratch', 0.1, 0.2, 0.3) + top1('spark', 0.7, 0.1)
    tables = {
        to_csv(table_of(order, methods=('scratch', 'spark'), columns=[TOP1]))
        for order in itertools.islice(itertools.permutations(records), 0, 120, 7)
    }
    assert len(tables) == 1


def test_a_record_given_twice_and_two_suites_in_one_table_are_refused(top1):
    records = top1('spark', 1.0, 2.0)
    with pytest.raises(InputError, match='two records of measured/demo/classification/convnext_atto/spark/1'):
        table_of([*records, records[1]], methods=('spark',), columns=[TOP1])
    with pytest.raises(InputError, match='several suites in one table: demo, other'):
        table_of(records + top1('scratch', 1.0, suite='other'), methods=('spark',), columns=[TOP1])


def test_published_figures_have_rows_of_their_own_with_a_dagger_where_not_verified(top1):
    published = {'origin': 'published', 'source': 'a paper'}
    records = (
        top1('scratch', 10.0)
        + top1('spark', 12.0)
        + top1('spark', 84.1, verified=False, **published)
        + top1('scratch', 80.0, verified=True, **published)
    )
    table = table_of(records, methods=('scratch', 'spark'), columns=[TOP1])
    assert [(row.label, row.cells[0].value) for row in table.rows] == [
        ('scratch', 10.0),
        ('spark', 12.0),
        ('scratch (published)', 80.0),
        ('spark (published) †', 84.1),
    ]
    assert table.rows[3].cells[0].delta == pytest.approx(4.1)
    assert 'not checked' in table.note


def test_known_methods_come_first_in_their_order_and_others_by_the_alphabet():
    assert order_methods(['zeta', 'black_mosaic', 'mae', 'spark', 'scratch', 'spark']) == (
        'scratch',
        'spark',
        'black_mosaic',
        'mae',
        'zeta',
    )


def test_the_csv_read_back_equals_the_table_to_the_last_digit(top1, make_record):
    records = top1('scratch', 100 / 3, 0.1) + top1('spark', 2 / 3, None) + [make_record('detection', 'spark')]
    table = table_of(records, methods=('scratch', 'spark', 'no_sparse'), columns=[TOP1, BOX])
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(lines) == 6

    def number(text):
        return float(text) if text else None

    expected = [
        (row.arch, row.method, column.task, column.metric, cell.n, cell.seeds, cell.value, cell.std, cell.delta)
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]
    assert expected == [
        (
            line['arch'],
            line['method'],
            line['task'],
            line['metric'],
            int(line['n']),
            int(line['seeds']),
            number(line['value']),
            number(line['std']),
            number(line['delta']),
        )
        for line in lines
    ]
    assert expected[0][6] == pytest.approx((100 / 3 + 0.1) / 2, rel=1e-15)


def test_a_bar_in_a_label_does_not_break_the_markdown(top1):
    table = table_of(top1('spark', 1.0), methods=('spark',), columns=[('classification', 'top1', 'a|b')])
    heading, rule, line = to_markdown(table).splitlines()[:3]
    assert heading.replace('\\|', '').count('|') == rule.count('|') == line.count('|') == 5


def test_the_terminal_shows_every_row_and_figure(top1):
    import rich.console

    table = table_of(top1('scratch', 2.0, 4.0) + top1('spark', 9.0), methods=('scratch', 'spark'), columns=[TOP1])
    console = rich.console.Console(width=100, record=True, file=io.StringIO())
    console.print(to_grid(table, title='demo').to_rich())
    text = console.export_text()
    assert '3.0 ± 1.4 (n=2)' in text and '9.0' in text and '+6.0' in text and 'top-1 ↑' in text


def test_the_command_writes_both_files_and_prints_the_whole_table(tmp_path, top1, capsys):
    records = top1('scratch', 61.0) + top1('spark', 72.5)
    for record in records:
        write(record, tmp_path)
    (table,) = print_tables(tmp_path, 'demo')
    assert table == table_of_suite(records)
    assert [column.metric for column in table.columns] == ['top1']  # nothing but classification was run
    printed = capsys.readouterr().out
    assert '72.5' in printed and '+11.5' in printed
    assert (tmp_path / 'tables' / 'demo.md').read_text() == to_markdown(table)
    assert (tmp_path / 'tables' / 'demo.csv').read_text() == to_csv(table)
    assert len(list((tmp_path / 'tables').iterdir())) == 2


@pytest.mark.slow
def test_ten_thousand_records_become_a_table_in_less_than_two_seconds(tmp_path, make_record, capsys):
    # Of the processor, whatever else it does; as files and without the waiting for the disk that `write` does.
    curves = {'loss': [[10 * i, 1 / (i + 1)] for i in range(30)]}
    for arch, method, seed, (task, metric) in itertools.product(
        range(25),
        range(20),
        range(5),
        (('detection', 'box_ap'), ('detection_2x', 'box_ap'), ('linear', 'top1'), ('classification', 'top1')),
    ):
        metrics = {metric: 50 + method + seed / 10}
        record = make_record(task, f'm{method}', seed, arch=f'a{arch}', suite='big', metrics=metrics, curves=curves)
        path = record_path(tmp_path, *record.identity)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record.to_dict()))
    start = time.process_time()
    assert commands.main(['table', '--suite', 'big', '--results', str(tmp_path), '--format', 'terminal']) == 0
    assert time.process_time() - start < 2
    assert capsys.readouterr().out.count('69.2 ± 0.2 (n=5)') == 25 * 4


@pytest.mark.parametrize(('suite', 'command'), [('demo', 'spark-bench demo'), ('ablation', 'spark-bench run ablation')])
def test_a_suite_without_records_names_the_folder_and_the_command(tmp_path, suite, command):
    with pytest.raises(InputError) as caught:
        print_tables(tmp_path, suite)
    assert str(tmp_path / 'measured' / suite) in str(caught.value) and command in str(caught.value)
    assert list(tmp_path.iterdir()) == []
