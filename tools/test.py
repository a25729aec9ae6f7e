"""Evaluate a detector, in OpenMMLab's habit: tools/test.py CONFIG CHECKPOINT [--work-dir DIR] [--cfg-options ...].

The same as ``spark-bench evaluate CONFIG --weights CHECKPOINT``, whose other options it takes too.
"""

import sys

from spark_bench.commands import main
from spark_bench.commands.parsing import take_local_rank

if __name__ == '__main__':
    words = take_local_rank(sys.argv[1:])
    if '--help' in words or '-h' in words:
        sys.exit(main(['evaluate', '--help']))
    if len(words) < 2 or words[0].startswith('-') or words[1].startswith('-'):
        print('tools/test.py: error: give CONFIG and CHECKPOINT first, options behind them', file=sys.stderr)
        sys.exit(2)
    sys.exit(main(['evaluate', words[0], '--weights', words[1], *words[2:]]))
