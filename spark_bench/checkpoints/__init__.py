"""Reading weights of networks: every tensor is accounted for, and nothing is unpickled."""

from spark_bench.checkpoints.loading import Coverage, load, read_metadata, read_tensors, save

__all__ = ['Coverage', 'load', 'read_metadata', 'read_tensors', 'save']
