"""SparK as a model that mmengine's Runner trains."""

from mmengine.model import BaseModel
from mmengine.registry import MODELS

from pretrain.spark import build_spark


@MODELS.register_module()
class SparKPretrainer(BaseModel):
    """Wraps :class:`pretrain.SparK`; the arguments are those of :func:`pretrain.build_spark`."""

    def __init__(self, data_preprocessor=None, init_cfg=None, **spark):
        super().__init__(data_preprocessor, init_cfg)
        self.spark = build_spark(**spark)

    def forward(self, inputs, data_samples=None, mode='loss'):
        """``inputs`` is a batch of pictures ``(B, 3, H, W)``; returns ``{'loss': scalar}``."""
        return {'loss': self.spark(inputs)}
