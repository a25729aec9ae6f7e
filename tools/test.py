"""Evaluate a detector, in OpenMMLab's habit: tools/test.py CONFIG CHECKPOINT [--work-dir DIR] [--cfg-options ...].

The same as ``spark-bench evaluate CONFIG --weights CHECKPOINT``, whose other options it takes too.
"""

import sys

from spark_bench.cli import main

if __name__ == '__main__':
    config, checkpoint = [*sys.argv[1:3], *['--help'] * 2][:2]
    sys.exit(main(['evaluate', config, '--weights', checkpoint, *sys.argv[3:]]))
