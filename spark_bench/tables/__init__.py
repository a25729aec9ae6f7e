"""Tables as pure functions of records: built, told from noise, and written in five formats."""

from spark_bench.tables.build import build_table
from spark_bench.tables.csv import to_csv
from spark_bench.tables.html import to_html
from spark_bench.tables.latex import to_latex
from spark_bench.tables.markdown import to_markdown
from spark_bench.tables.parts import Column, Table, TableSpec
from spark_bench.tables.suite import table_of_suite
from spark_bench.tables.text import to_grid

__all__ = [
    'Column',
    'Table',
    'TableSpec',
    'build_table',
    'table_of_suite',
    'to_csv',
    'to_grid',
    'to_html',
    'to_latex',
    'to_markdown',
]
