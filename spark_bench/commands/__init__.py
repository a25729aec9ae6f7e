"""The command line, a module a command: ``add_options`` gives its words, ``main`` is its body.

The module's docstring is its line in ``spark-bench --help``. What a body needs is loaded when it runs, so that --help
answers at once.
"""

import argparse
import signal
from collections.abc import Sequence
from importlib import import_module

from spark_bench.commands.failures import TRAINING, tell
from spark_bench.commands.parsing import Parser, refuse_contradiction, refuse_unfit_name
from spark_bench.commands.streams import flush_output, is_pipe_at_its_end, prepare_streams
from spark_bench.errors import InputError

# From name to module, in the order of --help.
COMMANDS = {
    name: import_module(f'{__name__}.{name}')
    for name in (
        'demo',
        'run',
        'pretrain',
        'finetune',
        'detect',
        'evaluate',
        'table',
        'compare',
        'report',
        'visualize',
        'data',
        'profile',
        'inspect',
        'convert',
        'doctor',
    )
}


def build_parser() -> Parser:
    """The parser of ``spark-bench`` with all its commands."""
    parser = Parser(
        prog='spark-bench',
        description='Measure how well convnets pretrained with SparK transfer to '
        'detection, segmentation and classification.',
    )
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, command in COMMANDS.items():
        options = commands.add_parser(name, help=command.__doc__)
        command.add_options(options)
        # SUPPRESS: a --debug before the command is kept.
        options.add_argument('--debug', action='store_true', default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run one command; return its exit status: 0 done, 1 a run or check failed, 2 bad usage or input.

    Args:
        argv: its words; None for those that the program was started with.
    """
    has_output, args = prepare_streams(), None
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as it is while the program loads
            signal.signal(signal.SIGINT, signal.default_int_handler)
        args = build_parser().parse_args(argv)
        if not has_output and args.command not in (*TRAINING, 'evaluate'):
            raise InputError(
                'standard output is closed, and what this command tells goes there: give it a file, or /dev/null'
            )
        refuse_contradiction(args)
        refuse_unfit_name(args)
        status = COMMANDS[args.command].main(args)
        flush_output()
        return status
    except SystemExit:  # of argparse, after --help
        is_pipe_at_its_end()
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, a person reads one line
        if argv is None:  # on the way out of Python, a further Ctrl-C has nothing to stop but the telling
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return tell(error, args)
