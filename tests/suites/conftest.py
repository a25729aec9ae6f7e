"""The small suite and the images that it trains on."""

import os

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from small_suite import SUITE, spark_bench, words


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 4)):
        for number in range(4):
            (root / split / f'class{number}').mkdir(parents=True)
            for i in range(count):
                noisy = np.array([number * 60, 200 - number * 50, 90]) + rng.integers(-40, 40, (8, 8, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).resize((70, 64)).save(
                    root / split / f'class{number}' / f'{i}.png'
                )
    return root


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text(SUITE)
    return path


@pytest.fixture(scope='session')
def finished(images, tmp_path_factory):
    """The small suite, run once for all processes of the session: its folder, and what the run printed."""
    shared = tmp_path_factory.getbasetemp()
    folder = (shared.parent if 'PYTEST_XDIST_WORKER' in os.environ else shared) / 'finished'
    with FileLock(f'{folder}.lock'):
        if not (folder / 'printed.txt').exists():
            folder.mkdir()
            (folder / 'small.py').write_text(SUITE)
            done = spark_bench(words(folder / 'small.py', images, folder, '--jobs', '2'))
            assert done.returncode == 0, done.stderr[-3000:]
            (folder / 'printed.txt').write_text(done.stdout)
    return folder, (folder / 'printed.txt').read_text()
