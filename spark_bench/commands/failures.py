"""How a command that failed ends: with one line on standard error, and an exit status."""

import argparse
import contextlib
import sys
import traceback

from spark_bench.commands.streams import is_pipe_at_its_end
from spark_bench.errors import InputError, RunError, ToldElsewhere, printable

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 1, 2, 130, 141
# What trains: whatever was interrupted goes on, and what is printed is in the records and logs too.
TRAINING = ('demo', 'run', 'pretrain', 'finetune', 'detect')


def tell(error: BaseException, args: argparse.Namespace | None) -> int:
    """Tell of an error in one line, after its traceback with ``--debug``; return the exit status.

    Args:
        args: of the command; None where they could not be read.
    """
    if getattr(args, 'debug', False):
        traceback.print_exc()
    message, status = _explain(error, getattr(args, 'command', None))
    if message:
        with contextlib.suppress(OSError):
            print(f'spark-bench: error: {printable(message)}', file=sys.stderr)
    return status


def _explain(error, command):
    """``(line, exit status)``; no line where nobody is there to read on."""
    pipe_ended = is_pipe_at_its_end()
    if _is_interrupt(error):
        return f'interrupted{": the same command continues" * (command in TRAINING)}', EXIT_INTERRUPTED
    if pipe_ended and isinstance(error, BrokenPipeError):
        return None, EXIT_PIPE
    if isinstance(error, ToldElsewhere):
        return None, _explain(error.error, command)[1]
    if isinstance(error, InputError):
        return error, EXIT_USAGE
    if isinstance(error, RunError):
        return error, EXIT_FAILED
    if isinstance(error, OSError):
        where = f'{error.filename}: ' if error.filename else ''
        return f'{where}{error.strerror or error}', EXIT_FAILED
    reason = ' '.join(str(error).split())[:300]
    return f'unexpected {type(error).__name__}: {reason} (--debug shows where)', EXIT_FAILED


def _is_interrupt(error):
    """Whether the error, or one that it was raised on the way of, is a Ctrl-C: libraries put their own in its place."""
    seen, waiting = [], [error]
    while waiting:
        error = waiting.pop()
        if error is None or error in seen:
            continue
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.append(error)
        waiting += error.__cause__, error.__context__
    return False
