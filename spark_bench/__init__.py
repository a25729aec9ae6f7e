"""Benchmark suite for convnets pretrained with SparK.

Importing this package registers its backbones, data sets, transforms and hooks in OpenMMLab's root
registry, so that ``custom_imports = dict(imports=['spark_bench'])`` in a config makes a stock mmdet or
mmpretrain see them.
"""

import sys
from pathlib import Path

from spark_bench import operators
from spark_bench.compatibility import leave_out_multimodal

__version__ = '0.1.0'

operators.install()
leave_out_multimodal()

# The command line answers --help and makes tables without loading torch: its commands import what they need themselves.
# ('-m' stands in sys.argv while Python looks up the package of `python -m spark_bench...`.)
if Path(sys.argv[0] if sys.argv else '').name not in ('spark-bench', 'aggregate.py', 'import_published.py', '-m'):
    from spark_bench import registration  # noqa: F401
