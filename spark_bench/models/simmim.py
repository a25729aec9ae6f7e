"""SimMIM: mmpretrain's model around a Swin whose name and weights are timm's.

Shape suffixes: B images, h w tokens of each.
"""

from typing import TYPE_CHECKING, Any

import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from spark_bench.data.views import TOKEN, block_mask
from spark_bench.errors import InputError
from spark_bench.models.masked import MaskedModel, describe

# What masks are drawn by where nothing is stated.
_MASKS = {'mask_patch': 32, 'mask_ratio': 0.6}

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict


@MODELS.register_module()
class SimMIMPretrainer(MaskedModel):
    """Masked pixels of a Swin, guessed by one linear layer (Xie et al., arXiv 2111.09886): ``mmpretrain.SimMIM``.

    Args:
        arch: timm name of a Swin, such as ``swin_base`` or ``swin_mini``.
        input_size: side of the images in pixels.
        window_size: side of an attention window in tokens; the network's own where None.
        drop_path_rate: stochastic depth.
        mask_patch, mask_ratio: of the masks of reconstructions; those of training are the data set's.
        channels_last: keep weights and images in that memory layout.

    Raises:
        InputError: for another network.
    """

    methods, file, views = ('simmim',), 'simmim', ('simmim',)
    _remedy = 'take a Swin, such as swin_base or swin_mini'
    _stride = 32

    def __init__(
        self,
        arch: str,
        input_size: int = 192,
        window_size: int | None = None,
        drop_path_rate: float = 0.0,
        mask_patch: int = 32,
        mask_ratio: float = 0.6,
        channels_last: bool = False,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
    ):
        network = _describe_swin(arch)
        blocks = [layer.blocks for layer in network.layers]
        window = blocks[0][0].window_size[0] if window_size is None else window_size
        self._mask = mask_patch, mask_ratio
        super().__init__(
            arch,
            input_size,
            dict(
                type='SimMIM',
                backbone=dict(
                    type='SimMIMSwinTransformer',
                    img_size=input_size,
                    drop_path_rate=drop_path_rate,
                    stage_cfgs=dict(block_cfgs=dict(window_size=window)),
                    arch=dict(
                        embed_dims=network.embed_dim,
                        depths=[len(stage) for stage in blocks],
                        num_heads=[stage[0].attn.num_heads for stage in blocks],
                    ),
                ),
                neck=dict(type='SimMIMLinearDecoder', in_channels=network.num_features, encoder_stride=self._stride),
                head=dict(
                    type='SimMIMHead',
                    patch_size=TOKEN,
                    loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3),
                ),
            ),
            channels_last,
            data_preprocessor,
        )

    @classmethod
    def check(cls, cfg: 'Config') -> None:
        model = cfg.model
        network, side = _describe_swin(model.arch), cls.side(model) or 0
        if side % cls._stride:
            raise InputError(f'model.input_size is {side}: give a multiple of {cls._stride}')
        window = model.get('window_size')
        window = network.layers[0].blocks[0].window_size[0] if window is None else window
        if not isinstance(window, int) or not 1 <= window <= side // cls._stride:
            raise InputError(
                f'model.window_size is {window!r}: give a whole number from 1 up to the side of the last '
                f'map of images of {side} pixels, {side // cls._stride}, or change model.input_size'
            )
        told = {key: model.get(key, default) for key, default in _MASKS.items()}
        block_mask(side, **told)
        views = cfg.train_dataloader.dataset.get('views') or {}
        for key, default in _MASKS.items():
            if views and told[key] != default:
                views.setdefault(key, told[key])  # which says nothing of it, and would draw the default
        odd = next((key for key in told if views.get(key, told[key]) != told[key]), None)
        if odd:
            raise InputError(
                f'model.{odd} is {told[odd]}, but train_dataloader.dataset.views.{odd} is {views[odd]}: '
                'change both with --cfg-options'
            )

    @classmethod
    def side(cls, model: 'ConfigDict') -> int | None:
        return model.get('input_size', 192)

    def forward(
        self, inputs: torch.Tensor, mask: list[torch.Tensor], data_samples: object = None, mode: str = 'loss'
    ) -> dict[str, torch.Tensor]:
        """The loss of a batch.

        Args:
            inputs: images ``(B, 3, H, W)``.
            mask: int64 ``(H/4, W/4)`` of each, 1 where a token is hidden.

        Returns:
            ``{'loss': scalar}``.
        """
        samples = [DataSample(mask=hidden) for hidden in mask]
        return self.model.loss(inputs.contiguous(memory_format=self.layout), samples)

    def no_weight_decay(self) -> set[str]:
        names = (name for name, _ in self.model.named_parameters())
        return {name for name in names if name.endswith(('mask_token', 'relative_position_bias_table'))}

    def paint(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        draw = block_mask(self.input_size, *self._mask)
        hidden_Bhw = torch.stack([draw() for _ in image_B3HW]).to(image_B3HW.device)
        answer_B3HW = self.model.neck(self.model.backbone(image_B3HW, hidden_Bhw)[0])
        hidden_BHW = hidden_Bhw.repeat_interleave(TOKEN, 1).repeat_interleave(TOKEN, 2)
        return answer_B3HW, hidden_BHW[:, None] > 0


def _describe_swin(arch):
    """timm's Swin, without memory for its weights."""
    network = describe(arch)
    if not isinstance(network, SwinTransformer):
        raise InputError(f'simmim pretrains Swins, such as swin_base or swin_mini: {arch} is none')
    return network
