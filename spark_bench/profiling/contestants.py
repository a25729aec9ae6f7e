"""Who is measured: this project's SparK with either engine, mmpretrain's own, and mmpretrain's MAE of a ViT-B."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmpretrain
import mmpretrain.engine  # noqa: F401 - puts its optimizers into the registry
import mmpretrain.models  # noqa: F401 - and its models
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn

from pretrain.encoder import PRETRAINING_DROP_PATH, FeaturePyramid, create_network
from pretrain.masking import VisibleLayout, random_mask
from spark_bench import registration  # noqa: F401 - puts optimizers into the registry
from spark_bench.models.pretrainer import SparKPretrainer
from spark_bench.places import shipped
from spark_bench.profiling.marks import Marks, mark_stages
from spark_bench.training.compiling import compile_network

ENGINES = ('packed', 'reference')
COMPILED = 'compiled'
MAE_ARCH = 'vit_base'
_CONFIGS = Path(mmpretrain.__file__).parent / '.mim/configs'
# mmpretrain's recipes of SparK, by timm's name of the network.
_STOCK = {
    'resnet50': 'spark/spark_sparse-resnet50_8xb512-amp-coslr-1600e_in1k.py',
    'convnext_small': 'spark/spark_sparse-convnext-small_16xb256-amp-coslr-800e_in1k.py',
    'convnextv2_tiny': 'spark/spark_sparse-convnextv2-tiny_16xb256-amp-coslr-800e_in1k.py',
}
_MAE = 'mae/mae_vit-base-p16_8xb512-amp-coslr-1600e_in1k.py'
_RECIPE = 'pretrain/configs/_base_/spark_1600e.py'


@dataclass(frozen=True)
class Contestant:
    """A model to train, and how.

    Attributes:
        arch: timm's name of the network.
        method: ``packed``, ``compiled`` (packed, through torch.compile), ``reference``, ``mmpretrain`` (its SparK) or
            ``mae`` (its MAE).
        loss: from images ``(B, 3, H, W)`` to the loss; each part of the network marks its output.
        encode: from images to maps, the encoder alone; None where it is not measured alone.
        wrapper: with the optimizer of its recipe, at learning rate 0: all steps see the same weights.
    """

    arch: str
    method: str
    model: nn.Module
    loss: Callable[[torch.Tensor], torch.Tensor]
    encode: Callable[[torch.Tensor], Sequence[torch.Tensor]] | None
    wrapper: OptimWrapper
    marks: Marks


def methods_of_ours(compiled: bool) -> tuple[str, ...]:
    """The ways in which this project's SparK is measured; ``compiled`` asks for one more."""
    return (*ENGINES, COMPILED) if compiled else ENGINES


def has_stock(arch: str) -> bool:
    """Whether mmpretrain has a recipe of SparK for that network."""
    return arch in _STOCK


def build_ours(
    arch: str,
    method: str,
    input_size: int,
    batch_size: int,
    mask_ratio: float,
    device: torch.device,
    layout: torch.memory_format,
) -> Contestant:
    """SparK with one of this project's engines; every engine gets the same weights and masks.

    Compiled, it is not cut into parts.

    Raises:
        InputError: for a network or a size that does not fit.
    """
    torch.manual_seed(0)
    marks, compiled = Marks(device), method == COMPILED
    pyramid = FeaturePyramid(create_network(arch, PRETRAINING_DROP_PATH.get(arch, 0.0)))
    if not compiled:
        mark_stages(pyramid.network, marks)
    engine = 'packed' if compiled else method
    model = SparKPretrainer(arch=pyramid, input_size=input_size, mask_ratio=mask_ratio, engine=engine)
    spark = model.spark
    if compiled:
        compile_network(model)
    else:
        for densify in spark.densify:
            marks.watch('densify', densify)
        for number, block in enumerate(spark.decoder.dec, start=1):
            marks.watch(f'decoder {number}', block)
    active = random_mask(batch_size, spark.grid, mask_ratio, torch.Generator().manual_seed(0))

    def encode(image_B3HW: torch.Tensor) -> Sequence[torch.Tensor]:
        visible = VisibleLayout(active, image_B3HW.device)
        return spark.encoder.maps(spark.encoder.masked(image_B3HW, visible), visible)

    cfg = Config.fromfile(shipped(_RECIPE)).optim_wrapper
    return _contestant(
        arch, method, model, lambda image: spark(image, active), None if compiled else encode, cfg, marks, layout
    )


def build_stock(
    arch: str, input_size: int, mask_ratio: float, device: torch.device, layout: torch.memory_format
) -> Contestant:
    """mmpretrain's SparK of a network for which :func:`has_stock`."""
    cfg = Config.fromfile(_CONFIGS / _STOCK[arch])
    cfg.model.update(input_size=input_size, mask_ratio=mask_ratio)
    model, marks = _build_model(cfg), Marks(device)
    stages = getattr(model.backbone, 'stages', None) or [getattr(model.backbone, f'layer{i}') for i in (1, 2, 3, 4)]
    for number, stage in enumerate(stages, start=1):
        marks.watch(f'encoder {number}', stage)
    for projector in model.enc_dec_projectors:
        marks.watch('densify', projector)
    for number, block in enumerate(model.neck.decoder, start=1):
        marks.watch(f'decoder {number}', block)
    return _build_theirs(arch, 'mmpretrain', model, cfg, marks, layout)


def build_mae(input_size: int, device: torch.device, layout: torch.memory_format) -> Contestant:
    """mmpretrain's MAE of a ViT-B, three quarters of whose patches are hidden."""
    cfg = Config.fromfile(_CONFIGS / _MAE)
    cfg.model.backbone.img_size = input_size
    cfg.model.neck.num_patches = (input_size // cfg.model.backbone.patch_size) ** 2
    model, marks = _build_model(cfg), Marks(device)
    layers = model.backbone.layers
    for number in (1, 2, 3):
        marks.watch(f'encoder {number}', layers[len(layers) * number // 4 - 1])
    marks.watch('encoder 4', model.backbone)
    for number, block in enumerate(model.neck.decoder_blocks, start=1):
        marks.watch(f'decoder {number}', block)
    return _build_theirs(MAE_ARCH, 'mae', model, cfg, marks, layout)


def _build_model(cfg):
    # Some of its parts look for others where mmengine's default scope says.
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg.model)


def _build_theirs(arch, method, model, cfg, marks, layout):
    with _quiet():
        model.init_weights()
    wrapper = ConfigDict(cfg.optim_wrapper, type='OptimWrapper')
    wrapper.optimizer.type = f'mmpretrain.{wrapper.optimizer.type}'
    wrapper.pop('loss_scale', None)  # of float16
    return _contestant(arch, method, model, lambda image: model.loss(image, [])['loss'], None, wrapper, marks, layout)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within, mmengine does not tell how it initialises each weight, and what it does to each parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _contestant(arch, method, model: BaseModel, loss, encode, cfg, marks, layout):
    model.to(marks.device, memory_format=layout).train()
    cfg.optimizer.lr = 0.0
    with _quiet():
        wrapper = build_optim_wrapper(model, cfg)
    backward = wrapper.backward

    def mark_backward(value: torch.Tensor, **named: object) -> None:
        backward(value, **named)
        marks.note(begins=('optimizer', ''))

    wrapper.backward = mark_backward
    return Contestant(arch, method, model, loss, encode, wrapper, marks)
