"""Benchmark suite for convnets pretrained with SparK.

Importing this package registers its backbones, data sets, transforms and hooks in OpenMMLab's root
registry, so that ``custom_imports = dict(imports=['spark_bench'])`` in a config makes a stock mmdet or
mmpretrain see them.
"""

import signal
import sys
from pathlib import Path

from spark_bench import operators
from spark_bench.compatibility import leave_out_multimodal

__version__ = '0.1.0'

_PROGRAM = Path(sys.argv[0] if sys.argv else '').name
# A Ctrl-C while the program is still loading ends it without a traceback of its imports; main takes over from there.
if _PROGRAM == 'spark-bench' and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

operators.install()
leave_out_multimodal()

# The command line answers --help and makes tables without loading torch: its commands import what they need themselves.
# ('-m' stands in sys.argv while Python looks up the package of `python -m spark_bench...`.)
if _PROGRAM not in ('spark-bench', 'aggregate.py', 'import_published.py', '-m'):
    from spark_bench import registration  # noqa: F401
