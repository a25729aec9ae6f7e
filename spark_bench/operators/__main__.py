"""Run a script of somebody else's that imports mmdet before it reads the config that names this package.

python -m spark_bench.operators path/to/mmdet/tools/test.py CONFIG CHECKPOINT
"""

import os
import runpy
import sys

from spark_bench import registration  # noqa: F401


def main() -> None:
    """Become the script that the command line names, with its arguments."""
    if len(sys.argv) < 2 or not os.path.isfile(sys.argv[1]):
        sys.exit('spark_bench.operators: give a Python script, and its arguments')
    sys.argv.pop(0)
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
