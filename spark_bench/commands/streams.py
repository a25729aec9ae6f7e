"""Standard output and error: that they are there, that they take any text, and how an end of them is told."""

import codecs
import contextlib
import os
import select
import sys

# What older encodings lack has a plain form here where it has one, and else stands in the text as \u2191: no error in
# the middle of it.
_PLAIN = {
    '─': '-',
    '−': '-',
    '–': '-',
    '—': '-',
    '×': 'x',
    '±': '+-',
    '…': '...',
    '’': "'",
    '“': '"',
    '”': '"',
    '→': '->',
    '≥': '>=',
    '≤': '<=',
}


def _make_plain(error):
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return ''.join(
        _PLAIN.get(letter) or letter.encode('ascii', 'backslashreplace').decode() for letter in letters
    ), error.end


codecs.register_error('spark_bench_plain', _make_plain)


def prepare_streams() -> bool:
    """Have both streams escape what their encoding lacks; what was closed leads to nowhere from now on.

    Returns:
        whether there is a standard output.
    """
    is_open = sys.stdout is not None
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        if getattr(sys, name) is None:
            # Else the next file that is opened takes its number, and gets what libraries print.
            _lead_nowhere(number)
            setattr(sys, name, open(number, 'w' if number else 'r', closefd=False))  # noqa: SIM115
        elif number and hasattr(getattr(sys, name), 'reconfigure'):
            getattr(sys, name).reconfigure(errors='spark_bench_plain')
    return is_open


def is_pipe_at_its_end() -> bool:
    """Whether standard output is a pipe whose reader has gone. What is left to write is then dropped.

    Else Python would try once more when it ends, and tell of that.
    """
    with contextlib.suppress(OSError, ValueError):  # of a stream in memory
        number = sys.stdout.fileno()
        watch = select.poll()
        watch.register(number, 0)  # that it is broken is told in any case
        if any(event & select.POLLERR for _, event in watch.poll(0)):
            _lead_nowhere(number)
            return True
    return False


def flush_output() -> None:
    """Write what is left now, so that what fails of it is met here and not when Python ends.

    Raises:
        OSError: naming the stream; BrokenPipeError as it stands.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with contextlib.suppress(ValueError):
            _lead_nowhere(sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, 'standard output') from error


def _lead_nowhere(number):
    void = os.open(os.devnull, os.O_RDWR)
    if void != number:
        os.dup2(void, number)
        os.close(void)
