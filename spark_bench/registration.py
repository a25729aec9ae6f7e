"""Everything this package adds to OpenMMLab's registries: importing this module registers it."""

from spark_bench.data import augmentation, coco_dataset, pictures  # noqa: F401
from spark_bench.engine import batches, files, hooks, loop, monitoring, precise_norm, resume, schedules  # noqa: F401
from spark_bench.models import (  # noqa: F401
    backbones,
    detection_backbones,
    feature_pyramid,
    layer_decay,
    pretrainer,
    vit,
)
