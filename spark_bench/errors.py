"""The errors that the command line turns into one line and an exit status."""

from pretrain.errors import InputError

__all__ = ['InputError', 'RunError']


class RunError(RuntimeError):
    """A run or a check failed although its input was sound. The message is one line; exit status 1."""
