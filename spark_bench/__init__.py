"""Benchmark suite for convnets pretrained with SparK.

Its backbones, data sets, transforms and hooks enter OpenMMLab's root registry when :mod:`spark_bench.registration` is
imported. This package imports that itself where mmengine is loaded already, as it is when a config asks for
``custom_imports = dict(imports=['spark_bench'])``: a stock mmdet or mmpretrain then sees them. A script that imports
anything of ``spark_bench`` before mmengine imports ``spark_bench.registration`` too.
"""

import sys

from spark_bench import operators
from spark_bench.compatibility import leave_out_multimodal

__version__ = '0.2.0'

# Before mmcv and mmpretrain are imported.
operators.install()
leave_out_multimodal()

# Else nothing heavy is loaded: the command line answers --help and makes tables without torch.
if 'mmengine' in sys.modules:
    from spark_bench import registration  # noqa: F401
