"""One cell in several processes of this machine: what torchrun starts, once a process.

``python -m torch.distributed.run --nproc-per-node N -m spark_bench.suites.cell TASK OPTIONS``, options as JSON.
"""

import json
import os
import sys
from importlib import import_module

from spark_bench.errors import InputError, RunError
from spark_bench.suites.runner import ENGINES
from spark_bench.suites.status import note_failure


def main(task, options):
    """Run the cell; exit status 1 where it failed, with the reason left in its folder by the first process."""
    from spark_bench.engine.runs import RunOptions
    options = json.loads(options)
    try:
        import_module(ENGINES[task]).run(RunOptions(**{**options, 'launcher': 'pytorch'}))
    except (InputError, RunError) as error:
        if int(os.environ.get('RANK', 0)) == 0:
            note_failure(options['work_dir'], error)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
