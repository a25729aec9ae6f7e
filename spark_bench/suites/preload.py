"""Importing this loads, quietly, every library that a cell needs: once, in the process that cells are forked from."""

import contextlib
import os
from importlib import import_module

# The engines, and what they load by name while they run.
_MODULES = ('spark_bench.engine.pretrain', 'spark_bench.engine.finetune', 'spark_bench.engine.detect',
            'mmdet.datasets', 'mmdet.engine', 'mmdet.evaluation', 'mmdet.models', 'mmdet.visualization',
            'mmpretrain.datasets', 'mmpretrain.engine', 'mmpretrain.evaluation', 'mmpretrain.models')


@contextlib.contextmanager
def _silence():
    """Throws away what is printed, also by compiled code."""
    streams = [os.dup(1), os.dup(2)]
    with open(os.devnull, 'wb') as void:
        os.dup2(void.fileno(), 1)
        os.dup2(void.fileno(), 2)
    try:
        yield
    finally:
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
            os.close(stream)


with _silence():
    for _name in _MODULES:
        import_module(_name)
