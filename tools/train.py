"""Train a detector, in OpenMMLab's habit: tools/train.py CONFIG [--work-dir DIR] [--amp] [--cfg-options KEY=VALUE ...].

The same as ``spark-bench detect``, whose other options it takes too. Training always resumes; --resume is understood.
"""

import sys

from spark_bench.cli import main

if __name__ == '__main__':
    sys.exit(main(['detect', *(word for word in sys.argv[1:] if word != '--resume')]))
