"""Records made by hand, and the reports on them, which are written once."""

import shutil

import pytest
from made_records import benchmark_runs, demo_runs, leave_demo, make_benchmark, make_published, make_record

from spark_bench.records import write
from spark_bench.report.page import write_report

__all__ = ['benchmark_runs', 'demo_runs', 'make_benchmark', 'make_published', 'make_record']


@pytest.fixture(scope='session')
def demo_folder(make_record, tmp_path_factory):
    """What ``leave_demo`` leaves, the records in ``results`` and the report on them in ``out``."""
    folder = tmp_path_factory.mktemp('demo')
    for record in leave_demo(folder, make_record):
        write(record, folder / 'results')
    write_report(folder / 'results', 'demo', folder / 'out' / 'report.html', folder)
    return folder


@pytest.fixture
def report(demo_folder, tmp_path):
    """The report on ``demo_runs``, a copy to do with as one likes."""
    shutil.copytree(demo_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path / 'out' / 'report.html'


@pytest.fixture(scope='session')
def benchmark_report(benchmark_runs, tmp_path_factory):
    """The report on ``benchmark_runs``, to be read alone."""
    folder = tmp_path_factory.mktemp('benchmark')
    for record in benchmark_runs:
        write(record, folder / 'results')
    return write_report(folder / 'results', 'benchmark', folder / 'out' / 'report.html', folder)
