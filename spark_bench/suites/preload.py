"""Importing this loads every library that a cell needs: once, in the process that cells are forked from."""

import contextlib
import gc
from importlib import import_module

# The engines, and what they load by name while they run.
_MODULES = (
    'spark_bench.runs.pretrain',
    'spark_bench.runs.finetune',
    'spark_bench.runs.detect',
    'mmdet.datasets',
    'mmdet.engine',
    'mmdet.evaluation',
    'mmdet.models',
    'mmdet.visualization',
    'mmpretrain.datasets',
    'mmpretrain.engine',
    'mmpretrain.evaluation',
    'mmpretrain.models',
)

# What is loaded stays: no collection looks through it, here or in a cell, whose memory it would have copied.
gc.disable()
for _name in _MODULES:
    with contextlib.suppress(Exception):  # the cell that needs it meets the same error, and has a log
        import_module(_name)
gc.freeze()
gc.enable()
