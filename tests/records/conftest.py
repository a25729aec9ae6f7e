"""Records made by hand."""

from made_records import make_benchmark, make_published, make_record

__all__ = ['make_benchmark', 'make_published', 'make_record']
