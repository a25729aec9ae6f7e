"""Make the tables of a suite from its records: tools/aggregate.py [--suite NAME] [--format FORMAT] [--output FILE].

The same as ``spark-bench table``, whose other options it takes too.
"""

import sys

from spark_bench.commands import main

if __name__ == '__main__':
    sys.exit(main(['table', *sys.argv[1:]]))
