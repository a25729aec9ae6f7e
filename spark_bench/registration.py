"""Everything this package adds to OpenMMLab's registries: importing this module registers it."""

from spark_bench.data import pictures  # noqa: F401
from spark_bench.engine import batches, files, hooks, loop, monitoring, resume, schedules  # noqa: F401
from spark_bench.models import backbones, pretrainer  # noqa: F401
