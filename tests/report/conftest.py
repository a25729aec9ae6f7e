"""Records made by hand, and the report on those of a small demo."""

import pytest
from made_records import benchmark_runs, demo_runs, make_benchmark, make_published, make_record

from spark_bench.records import write
from spark_bench.report.page import write_report

__all__ = ['benchmark_runs', 'demo_runs', 'make_benchmark', 'make_published', 'make_record']


@pytest.fixture
def report(demo_runs, tmp_path):
    """The report on ``demo_runs``."""
    for record in demo_runs:
        write(record, tmp_path / 'results')
    return write_report(tmp_path / 'results', 'demo', tmp_path / 'out' / 'report.html', tmp_path)
