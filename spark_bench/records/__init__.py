"""Records of runs, and what is made from them alone: tables, figures, the report."""

from spark_bench.records.environment import collect_environment
from spark_bench.records.schema import Record
from spark_bench.records.store import find, load_all, read, write

__all__ = ['Record', 'collect_environment', 'find', 'load_all', 'read', 'write']
