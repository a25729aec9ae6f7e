"""A suite that runs in seconds, its pictures, and the command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from spark_bench.records import load_all

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
title = 'A small suite'
data = dict(pictures='classes')
tiny = {'train_cfg.max_epochs': 1}
cells = [
    dict(task='pretrain', arch='test_resnet', methods=['spark', 'no_sparse'], data='pictures', options=dict(threads=1),
         recipe='pretrain/configs/demo_pretrain.py',
         overrides={'train_cfg.max_epochs': 2, 'train_dataloader.batch_size': 8, 'model.input_size': 64,
                    'model.decoder_width': 32, 'train_dataloader.dataset.input_size': 64}),
    dict(task='classification', arch='test_resnet', methods=['scratch', 'spark', 'no_sparse'], seeds=[0, 1],
         data='pictures', options=dict(threads=1), recipe='pretrain/configs/demo_finetune.py',
         overrides={'train_cfg.max_epochs': 2, 'global_batch': 8}),
]
tables = [dict(name='small', title=title, baseline='scratch', methods=['scratch', 'spark', 'no_sparse'],
               columns=[('classification', 'top1', 'top-1')])]
del tiny
"""


def write_pictures(root):
    """Four classes that their colour tells apart, 8 + 4 pictures of each, below ``root``."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 4)):
        for number in range(4):
            (root / split / f'class{number}').mkdir(parents=True)
            for i in range(count):
                noisy = np.array([number * 60, 200 - number * 50, 90]) + rng.integers(-40, 40, (8, 8, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).resize((70, 64)).save(
                    root / split / f'class{number}' / f'{i}.png')
    return root


def words(suite, pictures, folder, *extra):
    return ['run', str(suite), '--data-root', f'pictures={pictures}', '--work-dir', str(folder / 'work'), '--results',
            str(folder / 'results'), *extra]


def spark_bench(arguments, **environment):
    program = 'import sys; sys.argv[0] = "spark-bench"; from spark_bench.cli import main; sys.exit(main())'
    return subprocess.run([sys.executable, '-c', program, *arguments], capture_output=True, text=True, timeout=280,
                          env={**os.environ, 'PYTHONPATH': str(ROOT), **environment}, check=False)


def outcome(folder):
    return {(r.task, r.method, r.seed): (r.config_hash, r.metrics, r.curves)
            for r in load_all(folder / 'results', 'small')}
