"""Loads every library that a cell needs, quietly, in the process that the cells are forked from."""

import os
from importlib import import_module

ENGINES = {'pretrain': 'spark_bench.engine.pretrain', 'classification': 'spark_bench.engine.finetune',
           'detection': 'spark_bench.engine.detect'}
# What the engines load by name while they run.
_LIBRARIES = ('mmdet.datasets', 'mmdet.engine', 'mmdet.evaluation', 'mmdet.models', 'mmdet.visualization',
              'mmpretrain.datasets', 'mmpretrain.engine', 'mmpretrain.evaluation', 'mmpretrain.models')


def load():
    """Import everything; what the libraries print on the way concerns nobody here."""
    streams = [os.dup(1), os.dup(2)]
    with open(os.devnull, 'wb') as void:
        os.dup2(void.fileno(), 1)
        os.dup2(void.fileno(), 2)
    try:
        for name in (*ENGINES.values(), *_LIBRARIES):
            import_module(name)
    finally:
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
            os.close(stream)


if __name__ == 'spark_bench.suites.preload' and os.environ.get('SPARK_BENCH_PRELOAD'):
    load()
