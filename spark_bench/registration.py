"""Everything this package adds to OpenMMLab's registries: importing this module registers it."""

from spark_bench.compatibility import hide_evaluation_notice, hide_torchscript_notice

hide_torchscript_notice()
hide_evaluation_notice()

from spark_bench.data import classification, pretraining  # noqa: E402, F401
from spark_bench.data.coco import dataset, transforms  # noqa: E402, F401
from spark_bench.evaluation import accuracy, average_precision  # noqa: E402, F401
from spark_bench.models import (  # noqa: E402, F401
    backbones,
    classifier,
    contrastive,
    detection_backbones,
    feature_pyramid,
    layer_decay,
    mae,
    pretrainer,
    simmim,
    supervised,
    vit,
)
from spark_bench.probes import watching  # noqa: E402, F401
from spark_bench.training import batches, ema, loop, monitoring, precise_norm, resume, schedules  # noqa: E402, F401
