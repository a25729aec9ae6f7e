"""Weights of networks in every known format: read, recognised, loaded and converted, every tensor accounted for."""

from spark_bench.checkpoints.files.reading import read_metadata, read_tensors
from spark_bench.checkpoints.loading import Coverage, load
from spark_bench.checkpoints.writing import save, save_spark

__all__ = ['Coverage', 'load', 'read_metadata', 'read_tensors', 'save', 'save_spark']
