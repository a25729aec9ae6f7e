"""The command ``spark-bench visualize``: reconstructions and mask patterns as image files."""
