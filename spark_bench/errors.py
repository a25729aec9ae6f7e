"""The errors that the command line turns into one line and an exit status."""

import difflib
from collections.abc import Iterable, Sequence

from pretrain.errors import InputError

__all__ = ['InputError', 'RunError', 'ToldElsewhere', 'bare_message', 'first_of', 'nearest', 'printable']


class RunError(RuntimeError):
    """A run or a check failed although its input was sound. The message is one line; exit status 1."""


class ToldElsewhere(Exception):
    """In a process beside the first of those that train together: what went wrong, the first one tells.

    Attributes:
        error: the InputError or RunError that all of them met.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def bare_message(error: Exception) -> str:
    """What was first said: OpenMMLab's registry and torch's loader raise an error anew with their own words added."""
    while isinstance(error.__context__, InputError):
        error = error.__context__
    return str(error).strip().splitlines()[-1].rpartition('InputError: ')[2]


def printable(text: object) -> str:
    """``text`` on one line that any terminal can show: what it could not is escaped."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def first_of(names: Sequence[str], count: int = 3) -> str:
    """The first ``count`` names and how many more there are, for a message."""
    return ', '.join(names[:count]) + (f' and {len(names) - count} more' if len(names) > count else '')


def nearest(word: object, known: Iterable[str]) -> str:
    """``did you mean …?`` for the name among ``known`` that ``word`` is most like; empty where none is."""
    plain = {name.casefold().replace('_', '-'): name for name in known}
    close = difflib.get_close_matches(str(word).casefold().replace('_', '-'), plain, 1)
    return f'did you mean {plain[close[0]]}?' if close else ''
