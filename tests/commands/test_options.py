"""Options that are given more than once, or in two words: all of it counts, or is refused; nothing is dropped."""

import argparse
import os
import runpy
from pathlib import Path

import pytest

from spark_bench import commands
from spark_bench.commands import build_parser
from spark_bench.commands.parsing import Flag, Parser, take_local_rank


def parse(*words):
    return build_parser().parse_args(list(words))


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        parse(*words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count('\n') == 1
    return error


def all_options():
    """``(words of a command, option)`` of every option of every command that takes values."""

    def walk(parser, words):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    yield from walk(child, (*words, name))
            elif action.option_strings and (action.nargs != 0 or isinstance(action, Flag)):
                yield parser, words, action

    yield from walk(build_parser(), ())


# What the types of options take: a value, and another one.
VALUES = {'KEY=VALUE': ('a=1', 'b=2'), 'F': ('0.5', '0.25'), 'R': ('0.5', '0.25'), 'RATIO': ('0.5', '0.25')}


def test_every_option_given_twice_counts_twice_or_is_refused(capsys):
    several = set()
    for parser, words, action in all_options():
        if isinstance(action, Flag):
            given = [action.option_strings[0]], [action.option_strings[1]]
        else:
            # Of an option with a single choice there is no other value to give.
            first, *others = action.choices or VALUES.get(action.metavar, ('1', '2'))
            given = [action.option_strings[0], first], [action.option_strings[0], *others[:1]]
        for demand in (*parser._actions, *parser._mutually_exclusive_groups):
            demand.required = False
        if action.nargs in ('+', '*'):
            once, twice = (getattr(parser.parse_args(line), action.dest) for line in (given[0], given[0] + given[1]))
            assert len(once) == 1 and len(twice) == 2 and twice[0] == once[0], words
            several.add(action.option_strings[0])
            continue
        if len(given[1]) == len(given[0]):
            with pytest.raises(SystemExit):
                parser.parse_args(given[0] + given[1])
            error = capsys.readouterr().err
            assert action.option_strings[0] in error and 'given twice' in error
        assert getattr(parser.parse_args(given[0] * 2), action.dest) == getattr(
            parser.parse_args(given[0]), action.dest
        )  # the same word again says nothing new
    assert several == {
        '--cfg-options',
        '--data-root',
        '--only',
        '--slurm',
        '--metric',
        '--labels',
        '--weights',
        '--layers',
    }


def test_the_same_key_twice_is_the_last_and_defaults_stay_as_they_are():
    parser = build_parser()
    args = parser.parse_args(['detect', '--cfg-options', 'a=1', 'b=2', '--cfg-options', 'a=3'])
    assert dict(args.cfg_options) == {'a': 3, 'b': 2}
    assert parser.parse_args(['detect']).cfg_options == []
    assert parser.parse_args(['detect', '--cfg-options', 'c=4']).cfg_options == [('c', 4)]
    assert parser.parse_args(['profile', 'a', 'b']).arch == ['a', 'b']


def test_groups_and_exclusive_groups_have_the_same_rule(capsys):
    parser = Parser(prog='p')
    parser.add_argument_group('g').add_argument('--word', nargs='+', default=['x'])
    parser.add_mutually_exclusive_group().add_argument('--one')
    assert parser.parse_args(['--word', 'a', '--word', 'b']).word == ['a', 'b'] and parser.parse_args([]).word == ['x']
    with pytest.raises(SystemExit):
        parser.parse_args(['--one', 'a', '--one', 'b'])


@pytest.mark.parametrize(
    'words, named',
    [
        (['run', '--only', 'detection/*', 'demo'], '--only takes every word that follows it: put SUITE before it'),
        (['compare', '--metric', 'box_ap', 'A', 'B'], '--metric takes every word that follows it: put A B before it'),
        (['compare', 'A', '--metric', 'box_ap', 'B'], 'put B before it'),
    ],
)
def test_an_argument_that_an_option_swallowed_is_told(capsys, words, named):
    assert named in refused(capsys, *words)


def test_another_fault_is_told_as_it_is(capsys):
    error = refused(capsys, 'run', '--only', 'x', '--limit', '-3', 'demo')
    assert 'not positive' in error and 'follows' not in error
    assert 'follows' not in refused(capsys, 'compare', 'A')


@pytest.mark.parametrize(
    'command, option, value, setting',
    [
        ('finetune', '--epochs', '3', 'train_cfg.max_epochs=2'),
        ('detect', '--amp', None, 'optim_wrapper.autocast=False'),
        ('detect', '--arch', 'resnet50', 'model.backbone.arch=resnet18'),
        ('pretrain', '--arch', 'resnet50', 'model.arch=resnet18'),
        ('detect', '--workers', '1', 'test_dataloader.num_workers=2'),
        ('pretrain', '--bad-images', 'skip', 'train_dataloader.dataset.bad_images=fail'),
        ('finetune', '--label-fraction', '0.1', 'train_dataloader.dataset.fraction=0.2'),
    ],
)
def test_an_option_and_its_key_of_the_config_may_not_differ(capsys, command, option, value, setting):
    words = [command, option, *([value] if value else []), '--cfg-options', setting]
    assert commands.main(words) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and option in error and setting in error


@pytest.mark.parametrize(
    'given', [['--local-rank=1'], ['--local_rank=1'], ['--local-rank', '1'], ['--local_rank', '1']]
)
@pytest.mark.parametrize('place', [0, 1, 3])
def test_the_local_rank_of_torchs_launcher_is_understood(monkeypatch, given, place):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    words = ['recipe.py', '--launcher', 'pytorch']
    assert take_local_rank([*words[:place], *given, *words[place:]]) == words
    assert os.environ['LOCAL_RANK'] == '1'
    monkeypatch.setenv('LOCAL_RANK', '0')
    assert take_local_rank([*words, *given]) == words and os.environ['LOCAL_RANK'] == '0'  # torchrun's own


@pytest.mark.parametrize(
    'tool, words, command',
    [('train', ['recipe.py', '--resume', 'auto'], 'detect'), ('test', ['recipe.py', 'x.pth'], 'evaluate')],
)
def test_openmmlabs_scripts_take_it(monkeypatch, tool, words, command):
    called = []
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(commands, 'main', called.append)
    monkeypatch.setattr('sys.argv', [f'{tool}.py', '--local-rank=0', *words])
    with pytest.raises(SystemExit):
        runpy.run_path(str(Path(__file__).parents[2] / 'tools' / f'{tool}.py'), run_name='__main__')
    assert called == [[command, 'recipe.py', *(['--weights', 'x.pth'] if tool == 'test' else [])]]


@pytest.mark.parametrize('command', ['pretrain', 'finetune', 'detect', 'evaluate', 'table', 'report'])
@pytest.mark.parametrize(
    'option, value', [('--method', 'a/b'), ('--suite', '../up'), ('--suite', 'a b'), ('--method', '')]
)
def test_a_name_that_no_record_can_have_is_told_by_its_option(capsys, command, option, value):
    if command in ('table', 'report') and option == '--method':
        option = '--suite'
    assert commands.main([command, option, value]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and f'{option} {value!r} is no name' in error
