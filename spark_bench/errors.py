"""The errors that the command line turns into one line and an exit status."""

from pretrain.errors import InputError

__all__ = ['InputError', 'RunError', 'printable']


class RunError(RuntimeError):
    """A run or a check failed although its input was sound. The message is one line; exit status 1."""


def printable(text):
    """``text`` on one line that any terminal can show: what it could not is escaped."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
