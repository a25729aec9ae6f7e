"""The formats that checkpoints come in, one small adapter each; the lists below are the only register."""

from spark_bench.checkpoints.formats.base import Adapter
from spark_bench.checkpoints.formats.convnext import (
    HuggingFaceConvNeXt,
    MMConvNeXt,
    OfficialConvNeXt,
    TimmConvNeXt,
    TorchvisionConvNeXt,
)
from spark_bench.checkpoints.formats.resnet import (
    Detectron2ResNet,
    HuggingFaceResNet,
    MMDeepStemResNet,
    MMPretrainDeepStemResNet,
    MMResNet,
    NumberedResNet,
    TimmResNet,
)
from spark_bench.checkpoints.formats.spark import AuthorsSparK, MMSparK, OwnSparK
from spark_bench.checkpoints.formats.transformers import MMSwin, MMViT, OfficialSwin, TimmSwin, TimmViT

# The first that matches is taken.
NETWORKS = (
    TimmConvNeXt(),
    OfficialConvNeXt(),
    MMConvNeXt(),
    TorchvisionConvNeXt(),
    HuggingFaceConvNeXt(),
    MMDeepStemResNet(),
    MMPretrainDeepStemResNet(),
    TimmResNet(),
    MMResNet(),
    NumberedResNet(),
    HuggingFaceResNet(),
    Detectron2ResNet(),
    OfficialSwin(),
    TimmSwin(),
    MMSwin(),
    TimmViT(),
    MMViT(),
)
WRAPPINGS = (OwnSparK(), AuthorsSparK(), MMSparK())


def network_adapter(family: str | None, format_name: str) -> Adapter | None:
    """The adapter of a family in a format, or None."""
    return next(
        (
            adapter
            for adapter in NETWORKS
            if adapter.family == family
            and adapter.format == format_name
            and not isinstance(adapter, (MMDeepStemResNet, MMPretrainDeepStemResNet))
        ),
        None,
    )
