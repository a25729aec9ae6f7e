"""One of the processes that train a cell together on this machine: what torchrun starts.

``python -m spark_bench.suites.member PARENT TASK OPTIONS``: the process number of torchrun; options as JSON.
"""

import ctypes
import json
import os
import signal
import sys

from spark_bench.errors import InputError, RunError, ToldElsewhere
from spark_bench.runs import run_task
from spark_bench.suites.status import note_failure

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def main(parent: str, task: str, options: str) -> int:
    """Run the cell; exit status 1 where it failed, with the reason left in its folder by the process that met it."""
    _end_with(int(parent))
    chosen = json.loads(options)
    try:
        run_task(task, **{**chosen, 'launcher': 'pytorch'})
    except ToldElsewhere:
        return 1
    except (InputError, RunError) as error:
        note_failure(chosen['work_dir'], error)  # of a loader, say, that this process alone has
        return 1
    return 0


def _end_with(parent):
    """Have this process killed as soon as ``parent``, which started it, is gone, however that ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # gone before
        sys.exit(1)


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
