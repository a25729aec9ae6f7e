"""Train a detector, in OpenMMLab's habit: tools/train.py CONFIG [--work-dir DIR] [--amp] [--cfg-options KEY=VALUE ...].

The same as ``spark-bench detect``, whose other options it takes too. OpenMMLab's --resume and --auto-scale-lr are
understood, and change nothing: training always goes on from the newest checkpoint of its work directory, and the
learning rate always belongs to the global batch. So is --local-rank, which torch.distributed.launch gives to each
process.
"""

import sys

from spark_bench.commands import main
from spark_bench.commands.parsing import take_local_rank

_ALWAYS = ('--resume', '--auto-scale-lr')

if __name__ == '__main__':
    words = take_local_rank(sys.argv[1:])
    if '--resume' in words and words[words.index('--resume') + 1 :][:1] == ['auto']:
        words.remove('auto')
    sys.exit(main(['detect', *(word for word in words if word not in _ALWAYS)]))
