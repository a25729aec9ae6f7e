"""What the command line does where its output cannot be shown, is closed or ends, and where it is interrupted."""

import io
import os
import sys

import pytest

from spark_bench import commands
from spark_bench.commands.streams import prepare_streams
from spark_bench.errors import InputError


def failing(monkeypatch, error, cause=None):
    """Have ``table`` raise ``error``; while ``cause`` is being handled, if there is one."""

    def command(args):
        if cause is None:
            raise error
        try:
            raise cause
        except BaseException:
            raise error  # noqa: B904 - as a library does it

    monkeypatch.setattr('spark_bench.commands.table.main', command)
    monkeypatch.setattr('spark_bench.commands.detect.main', command)


@pytest.mark.parametrize('encoding', ['latin-1', 'ascii', 'cp1252'])
def test_what_a_terminal_cannot_encode_is_escaped_and_the_status_stays(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, 'stdout', stream)
    monkeypatch.setattr('spark_bench.commands.table.main', lambda args: print('box AP ↑ Ω ─ − 3\udcff'))
    assert commands.main(['table']) is None
    text = stream.buffer.getvalue().decode(encoding)
    assert text == 'box AP \\u2191 \\u03a9 - - 3\\udcff\n'


def test_what_a_terminal_can_encode_stays(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding='utf-8')
    monkeypatch.setattr(sys, 'stdout', stream)
    monkeypatch.setattr('spark_bench.commands.table.main', lambda args: print('↑ Ω ─ ±'))
    assert commands.main(['table']) is None and stream.buffer.getvalue().decode() == '↑ Ω ─ ±\n'


def test_a_closed_output_is_one_line_and_a_training_needs_none(monkeypatch, capsys):
    kept = os.dup(1)
    try:
        monkeypatch.setattr(sys, 'stdout', None)
        assert commands.main(['table', '--suite', 'mini']) == 2
        error = capsys.readouterr().err
        assert error.count('\n') == 1 and 'standard output is closed' in error
        monkeypatch.setattr(sys, 'stdout', None)
        monkeypatch.setattr('spark_bench.commands.detect.main', lambda args: print('box AP') or 0)
        assert commands.main(['detect']) == 0
        assert os.readlink('/proc/self/fd/1') == os.devnull  # so that no file of the run gets what libraries print
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@pytest.mark.parametrize('buffered', [True, False])
def test_the_end_of_a_pipe_is_silent(monkeypatch, capsys, buffered):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, 'wb', buffering=-1 if buffered else 0) as raw:
        monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, write_through=not buffered))
        monkeypatch.setattr('spark_bench.commands.table.main', lambda args: print('a table') or 0)
        assert commands.main(['table']) == 141
        assert capsys.readouterr().err == ''
        sys.stdout.flush()  # as Python does at its end; led to nowhere


def test_a_full_disk_behind_the_output_is_named(monkeypatch, capsys):
    if not os.path.exists('/dev/full'):
        pytest.skip('no /dev/full here')
    with open('/dev/full', 'w') as stream:
        monkeypatch.setattr(sys, 'stdout', stream)
        monkeypatch.setattr('spark_bench.commands.table.main', lambda args: print('a table') or 0)
        assert commands.main(['table']) == 1
        assert capsys.readouterr().err == 'spark-bench: error: standard output: No space left on device\n'


@pytest.mark.parametrize(
    'error',
    [
        SyntaxError('Failed to format the config file'),
        InputError('config cannot be built'),
        OSError(4, 'Interrupted'),
        RuntimeError('DataLoader worker exited'),
    ],
)
def test_an_error_on_the_way_of_a_ctrl_c_is_an_interrupt(monkeypatch, capsys, error):
    failing(monkeypatch, error, KeyboardInterrupt())
    assert commands.main(['detect']) == 130
    assert capsys.readouterr().err == 'spark-bench: error: interrupted: the same command continues\n'


def test_only_commands_that_go_on_say_so_and_other_errors_are_themselves(monkeypatch, capsys):
    failing(monkeypatch, KeyboardInterrupt())
    assert commands.main(['table']) == 130
    assert capsys.readouterr().err == 'spark-bench: error: interrupted\n'
    failing(monkeypatch, InputError('no such thing'), ValueError('inner'))
    assert commands.main(['table']) == 2
    assert capsys.readouterr().err == 'spark-bench: error: no such thing\n'


def test_errors_that_lead_back_to_themselves_end(monkeypatch, capsys):
    first, second = RuntimeError('first'), RuntimeError('second')
    first.__cause__, second.__cause__ = second, first
    failing(monkeypatch, first)
    assert commands.main(['table']) == 1
    assert 'unexpected RuntimeError: first' in capsys.readouterr().err


def test_preparing_twice_changes_nothing(capsys):
    assert prepare_streams() and prepare_streams()
