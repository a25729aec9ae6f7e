"""The program ``spark-bench``, also as ``python -m spark_bench``."""

import signal
import sys


def main() -> int | None:
    """Run the command that the program was started with; return its exit status."""
    # A Ctrl-C while the program is still loading ends it without a traceback of its imports; the command then answers.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from spark_bench import commands

    return commands.main()


if __name__ == '__main__':
    sys.exit(main())
