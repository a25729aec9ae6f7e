"""A suite is named by its records or by its file, and where it has none a command that makes some is told."""

import re

import pytest

from spark_bench import commands
from spark_bench.commands import build_parser
from spark_bench.records import write
from spark_bench.suites.definition import load_suite


def answer(capsys, *words):
    status = commands.main([str(word) for word in words])
    return status, *capsys.readouterr()


def test_a_suite_of_ones_own_has_one_name_and_its_own_tables(tmp_path, make_benchmark, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for record in make_benchmark(('convnext_small',), ('scratch', 'spark'), suite='my-suite'):
        write(record, tmp_path / 'results')
    (tmp_path / 'my_suite.py').write_text(
        "cells = [dict(task='classification', arch='convnext_small', methods=['scratch'],"
        " data='embedded:classification', recipe='pretrain/configs/demo_finetune.py')]\n"
        "tables = [dict(name='only-top', title='Only top-1', columns=[('classification', 'top1', 'top')],"
        " baseline='spark')]\n"
    )
    for name in ('my_suite', 'my-suite'):
        status, out, err = answer(capsys, 'table', '--suite', name)
        assert status == 0 and 'box AP' in out and 'difference from scratch' in out
        assert err.count('\n') == 1 and '.py' in err  # that a file may define others
    status, out, err = answer(capsys, 'table', '--suite', 'my_suite.py')
    assert (status, err) == (0, '') or 'in no table here' in err
    assert 'Only top-1' in out and 'box AP' not in out and 'difference from spark' in ' '.join(out.split())
    assert (tmp_path / 'results/tables/only-top.csv').is_file()
    status, out, _ = answer(capsys, 'table', '--suite', 'my_suite.py', '--format', 'latex')
    assert status == 0 and r'\caption{Only top-1}' in out
    assert answer(capsys, 'report', '--suite', 'my_suite.py')[0] == 0
    page = (tmp_path / 'results/report-my-suite.html').read_text()
    assert 'Only top-1' in page and 'difference from spark' in page


@pytest.mark.parametrize(
    'name, results, named',
    [
        ('my-siute', 'results', 'did you mean my-suite?'),
        ('My_Suite', 'results', 'did you mean my-suite?'),
        ('elsewhere', 'results', 'name one that has any (my-suite)'),
        ('mine', 'nowhere', '--results'),
        ('my-suite', 'results/measured', '--results results'),
        ('my-suite', 'results/measured/my-suite', '--results results'),
        ('demo', 'nowhere', '`spark-bench demo`'),
        ('demo_quick', 'nowhere', '`spark-bench demo --quick`'),
        ('demo-quick', 'nowhere', '`spark-bench demo --quick`'),
        ('mini', 'nowhere', '`spark-bench run mini`'),
    ],
)
def test_a_suite_without_records_is_told_with_a_command_that_works(
    tmp_path, make_record, capsys, monkeypatch, name, results, named
):
    monkeypatch.chdir(tmp_path)
    write(make_record(suite='my-suite'), tmp_path / 'results')
    for command in ('table', 'report'):
        status, _, err = answer(capsys, command, '--suite', name, '--results', results)
        assert status == 2 and named in err and err.count('\n') == 1, err
    told = re.search('`spark-bench (.*?)`', err)
    if told:  # it is a command that there is
        args = build_parser().parse_args(told[1].split())
        assert args.command == 'demo' or load_suite(args.suite)


def test_a_demo_by_either_name_is_one_suite(tmp_path, make_record, capsys):
    write(make_record(suite='demo-quick'), tmp_path)
    tables = {
        answer(capsys, 'table', '--suite', name, '--results', tmp_path)[1] for name in ('demo_quick', 'demo-quick')
    }
    assert len(tables) == 1 and load_suite('demo-quick').name == load_suite('demo_quick').name == 'demo-quick'
