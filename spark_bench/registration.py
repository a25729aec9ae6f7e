"""Everything this package adds to OpenMMLab's registries: importing this module registers it."""

from spark_bench.data import coco_dataset, pictures  # noqa: F401
from spark_bench.engine import batches, files, hooks, loop, monitoring, precise_norm, resume, schedules  # noqa: F401
from spark_bench.models import backbones, detection_backbones, layer_decay, pretrainer  # noqa: F401
