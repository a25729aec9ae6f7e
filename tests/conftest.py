"""Settings that must stand before torch is loaded, and what no test may leave to the next."""

import gc
import os
import sys

import pytest

# What is loaded until the first test stays to the end: the collector looks at none of it, again and again, for a
# tenth of all the time. See pytest_collection_finish.
gc.disable()

# Threads that wait for each other are many times slower than one as soon as anything else runs on the machine.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# What tests write need not outlive a power cut, and most of it is gone before a disk has to hold it.
os.fsync = lambda descriptor: None

import spark_bench  # noqa: E402, F401 - before OpenMMLab, whose operators it answers for

pytest_plugins = ['small_data']


def pytest_configure(config):
    """Only tests of GPUs see one: what the others hold to the bit, or to the last digits, was found on CPUs."""
    if config.getoption('markexpr') != 'gpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''


def pytest_xdist_auto_num_workers():
    """One more than there are cores: some tests wait, for browsers, locks and processes that they kill."""
    return len(os.sched_getaffinity(0)) + 1


# Folders whose files take long: the first to be dealt out, so that no process is left alone with one of them.
LONG = ('suites', 'runs', 'training', 'probes', 'models')


def pytest_collection_modifyitems(items):
    def place(item):
        folder = item.path.parent.name
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=place)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope='session', autouse=True)
def cache_of_the_session(tmp_path_factory):
    """What is generated or fetched goes where all processes of the session share it, and never to the user's cache."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if 'PYTEST_XDIST_WORKER' in os.environ else folder
    os.environ['SPARK_BENCH_CACHE'] = str(shared / 'cache')


@pytest.fixture(autouse=True)
def loggers_of_their_own():
    """Every test begins without mmengine's loggers: theirs write to the streams of the test that made them."""
    yield
    logging_ = sys.modules.get('mmengine.logging')
    if logging_ is None:
        return
    for logger in logging_.MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    logging_.MMLogger._instance_dict.clear()
