"""The one exception for input that a user can mend."""


class InputError(ValueError):
    """Unusable input from outside: an option, a key, a file.

    The message is one line. It names the option, key or file, says what is wrong with it, and how to
    mend it. The command line prints it alone; a traceback appears only with ``--debug``.
    """
