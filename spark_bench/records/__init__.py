"""Records of runs: what they hold, how they are kept, and sets of them compared and merged."""

from spark_bench.records.environment import collect_environment
from spark_bench.records.schema import Record
from spark_bench.records.store import find, load_all, read, write

__all__ = ['Record', 'collect_environment', 'find', 'load_all', 'read', 'write']
