"""A suite of eight cells that runs in half a minute, and the command line as a process of its own."""

import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

from spark_bench import commands
from spark_bench.records import load_all

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
title = 'A small suite'
data = dict(images='classes')
tiny = {'train_cfg.max_epochs': 1}
cells = [
    dict(task='pretrain', arch='test_resnet', methods=['spark', 'no_sparse'], data='images', options=dict(threads=1),
         recipe='pretrain/configs/demo_pretrain.py',
         overrides={'train_cfg.max_epochs': 2, 'global_batch': 8, 'model.input_size': 64,
                    'model.decoder_width': 32, 'train_dataloader.dataset.input_size': 64}),
    dict(task='classification', arch='test_resnet', methods=['scratch', 'spark', 'no_sparse'], seeds=[0, 1],
         data='images', options=dict(threads=1), recipe='pretrain/configs/demo_finetune.py',
         overrides={'train_cfg.max_epochs': 2, 'global_batch': 8}),
]
tables = [dict(name='small', title=title, baseline='scratch', methods=['scratch', 'spark', 'no_sparse'],
               columns=[('classification', 'top1', 'top-1')])]
del tiny
"""

# Two cells whose learning rate is that of the better of two trials.
TUNED = """
title = 'A tuned suite'
data = dict(images='classes')
_shared = dict(arch='test_resnet', methods=['scratch'], data='images', options=dict(threads=1),
               recipe='pretrain/configs/demo_finetune.py')
_short = {'train_cfg.max_epochs': 1, 'global_batch': 8}
cells = [
    dict(task='classification', seeds=[0, 1], tune=dict(tasks=['classification_low', 'classification_high'],
         metric='top1'), overrides=_short, **_shared),
    *(dict(task=f'classification_{name}', overrides={**_short, 'base_lr': rate, 'train_cfg.max_epochs': 2}, **_shared)
      for name, rate in (('low', 1e-5), ('high', 2e-3))),
]
"""


def words(suite, images, folder, *extra):
    return [
        'run',
        str(suite),
        '--data-root',
        f'images={images}',
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        *extra,
    ]


def start(arguments, **options):
    """``spark-bench`` with ``arguments``, in a session of its own as a terminal gives it one."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), **options.pop('env', {})}
    # What a script starts in the background begins with Ctrl-C ignored, and so would this.
    program = (
        'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'from spark_bench.__main__ import main\nsys.exit(main())'
    )
    return subprocess.Popen(
        [sys.executable, '-c', program, *arguments], env=environment, text=True, start_new_session=True, **options
    )


def spark_bench(arguments, **environment):
    """Run ``spark-bench`` to its end, in this process, with these variables of the environment beside its own.

    The server that cells are forked from stays, so that the libraries are loaded once for all tests of a process.
    """
    with (
        mock.patch.dict(os.environ, environment),
        redirect_stdout(StringIO()) as output,
        redirect_stderr(StringIO()) as errors,
    ):
        status = commands.main(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


def outcome(folder):
    """What the records below ``folder`` say, without the circumstances of their runs."""
    return {
        (r.task, r.method, r.seed): (r.config_hash, r.metrics, r.curves) for r in load_all(folder / 'results', 'small')
    }
