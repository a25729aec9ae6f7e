"""MAE and SimMIM: mmpretrain's models around a ViT or Swin whose name and weights are timm's.

Shape suffixes: B images, L patches or tokens of each, p values of a patch, f patches a side.
"""

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pretrain.encoder import create_network
from spark_bench.checkpoints.writing import timm_tensors
from spark_bench.data.images.seeding import drawing_from
from spark_bench.data.views import TOKEN, block_mask
from spark_bench.errors import InputError
from spark_bench.models.pretraining import Encoder, PretrainingModel

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict

__all__ = ['MAEPretrainer', 'SimMIMPretrainer']


class _Masked(BaseModel, PretrainingModel):
    """What both have in common: a whole model of mmpretrain, whose backbone's weights timm's network takes."""

    def __init__(
        self,
        arch: str,
        input_size: int,
        model: dict[str, Any],
        channels_last: bool,
        data_preprocessor: dict[str, Any] | nn.Module | None,
    ):
        super().__init__(data_preprocessor)
        self.arch, self.input_size = arch, input_size
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = MODELS.build({**model, '_scope_': 'mmpretrain'}).to(memory_format=self.layout)
        self._demand_timms_names()

    def _demand_timms_names(self):
        """Refuse a network of timm that has other parts than mmpretrain's."""
        with torch.device('meta'):
            theirs = create_network(self.arch).state_dict()
        ours = self.encoder().tensors
        odd = sorted(ours.keys() ^ theirs.keys())
        if odd:
            raise InputError(
                f"{self.methods[0]} cannot pretrain {self.arch}: {odd[0]} is in one of timm's and "
                f"mmpretrain's network alone; {self._remedy}"
            )

    @classmethod
    def side(cls, model: 'ConfigDict') -> int | None:
        return model.get('input_size', 224)

    @property
    def trained(self) -> nn.Module:
        return self.model

    def encoder(self) -> Encoder:
        return Encoder(timm_tensors(self.model.backbone))

    def settings(self) -> dict[str, str]:
        return {'format': 'mmpretrain', 'input_size': str(self.input_size)}

    @property
    def shown_side(self) -> int | None:
        return self.input_size

    @torch.no_grad()
    def reconstruct(self, pixels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        device = next(self.parameters()).device
        mean_311, std_311 = self.data_preprocessor.mean.to(device), self.data_preprocessor.std.to(device)
        pixels_B3HW = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
        with _evaluating(self), _seeded(seed, device):
            answer_B3HW, hidden_B1HW = self.paint((pixels_B3HW - mean_311) / std_311)
        answer_B3HW = _to_pixels(answer_B3HW * std_311 + mean_311)
        images = {
            'original': pixels_B3HW,
            'masked': torch.where(hidden_B1HW, _to_pixels(mean_311), pixels_B3HW),
            'reconstruction': answer_B3HW,
            'pasted': torch.where(hidden_B1HW, answer_B3HW, pixels_B3HW),
        }
        return {name: image.permute(0, 2, 3, 1).contiguous().cpu().numpy() for name, image in images.items()}

    @abstractmethod
    def paint(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The network's answer everywhere, as a normalised image, and the bool mask ``(B, 1, H, W)`` of what was
        hidden from it."""


@MODELS.register_module()
class MAEPretrainer(_Masked):
    """Masked autoencoder of a plain ViT (He et al., arXiv 2111.06377): ``mmpretrain.MAE``.

    Args:
        arch: timm name of a ViT with class token, such as ``vit_base`` or ``vit_mini``.
        input_size: side of the images in pixels, the one that the network is made for.
        mask_ratio: share of the patches that is hidden, drawn anew for each image in the model.
        decoder_width, decoder_depth, decoder_heads: of the decoder's blocks.
        norm_pix: normalise each target patch by its own mean and deviation.
        channels_last: keep weights and images in that memory layout.

    Raises:
        InputError: for another network.
    """

    methods, file, views = ('mae',), 'mae', ('mae', 'spark')
    _remedy = 'take a plain ViT, such as vit_base or vit_mini'

    def __init__(
        self,
        arch: str,
        input_size: int = 224,
        mask_ratio: float = 0.75,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        norm_pix: bool = True,
        channels_last: bool = False,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
    ):
        network = _describe_vit(arch)
        patch, side = network.patch_embed.patch_size[0], input_size
        super().__init__(
            arch,
            input_size,
            dict(
                type='MAE',
                backbone=dict(
                    type='MAEViT',
                    img_size=side,
                    patch_size=patch,
                    mask_ratio=mask_ratio,
                    arch=dict(
                        embed_dims=network.embed_dim,
                        num_layers=len(network.blocks),
                        num_heads=network.blocks[0].attn.num_heads,
                        feedforward_channels=network.blocks[0].mlp.fc1.out_features,
                    ),
                ),
                neck=dict(
                    type='MAEPretrainDecoder',
                    num_patches=(side // patch) ** 2,
                    patch_size=patch,
                    embed_dim=network.embed_dim,
                    decoder_embed_dim=decoder_width,
                    decoder_depth=decoder_depth,
                    decoder_num_heads=decoder_heads,
                ),
                head=dict(
                    type='MAEPretrainHead',
                    norm_pix=norm_pix,
                    patch_size=patch,
                    loss=dict(type='PixelReconstructionLoss', criterion='L2'),
                ),
            ),
            channels_last,
            data_preprocessor,
        )

    @classmethod
    def check(cls, cfg: 'Config') -> None:
        model = cfg.model
        own, side = _describe_vit(model.arch).patch_embed.img_size[0], cls.side(model)
        if side != own:
            raise InputError(
                f'model.input_size is {side}: {model.arch} is made for {own}, change it and '
                'train_dataloader.dataset.input_size with --cfg-options'
            )
        ratio = model.get('mask_ratio', 0.75)
        patches = _describe_vit(model.arch).patch_embed.num_patches
        if not 1 <= int(patches * (1 - ratio)) < patches:
            raise InputError(
                f'model.mask_ratio is {ratio}: give a share between 0 and 1 that leaves one of {patches} '
                'patches or more'
            )
        width, heads = model.get('decoder_width', 512), model.get('decoder_heads', 16)
        for key, value in (('decoder_heads', heads), ('decoder_depth', model.get('decoder_depth', 8))):
            if not isinstance(value, int) or value < 1:
                raise InputError(f'model.{key} is {value!r}: give a whole number from 1 up')
        if width % heads or width % 4:
            raise InputError(f'model.decoder_width is {width}: give a multiple of 4 and of decoder_heads, {heads}')

    def forward(self, inputs: torch.Tensor, data_samples: object = None, mode: str = 'loss') -> dict[str, torch.Tensor]:
        """``inputs`` is a batch of images ``(B, 3, H, W)``; returns ``{'loss': scalar}``."""
        return self.model.loss(inputs.contiguous(memory_format=self.layout), None)

    def paint(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latent, hidden_BL, order = self.model.backbone(image_B3HW)
        prediction_BLp, head = self.model.neck(latent, order), self.model.head
        if head.norm_pix:
            patches_BLp = head.patchify(image_B3HW)
            variance_BL1, mean_BL1 = torch.var_mean(patches_BLp, dim=-1, keepdim=True)
            prediction_BLp = prediction_BLp * (variance_BL1 + 1e-6).sqrt() + mean_BL1
        hidden_BLp = hidden_BL[..., None].expand_as(prediction_BLp)
        return head.unpatchify(prediction_BLp), head.unpatchify(hidden_BLp)[:, :1] > 0


@MODELS.register_module()
class SimMIMPretrainer(_Masked):
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
        told = {key: model.get(key, default) for key, default in (('mask_patch', 32), ('mask_ratio', 0.6))}
        block_mask(side, **told)
        views = cfg.train_dataloader.dataset.get('views', {})
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


def _describe_vit(arch):
    """timm's ViT, without memory for its weights. Raises InputError for any other network."""
    network = _describe(arch)
    if not isinstance(network, VisionTransformer) or network.cls_token is None:
        raise InputError(f'mae pretrains plain ViTs, such as vit_base or vit_mini: {arch} is none')
    return network


def _describe_swin(arch):
    """timm's Swin, likewise."""
    network = _describe(arch)
    if not isinstance(network, SwinTransformer):
        raise InputError(f'simmim pretrains Swins, such as swin_base or swin_mini: {arch} is none')
    return network


def _describe(arch):
    with torch.device('meta'):
        return create_network(arch)


def _to_pixels(image_B3HW):
    return image_B3HW.round().clamp(0, 255).to(torch.uint8)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within, all generators start from ``seed``; afterwards they go on as if nothing was drawn."""
    with torch.random.fork_rng([device] if device.type == 'cuda' else []), drawing_from(seed):
        if device.type == 'cuda':
            torch.cuda.manual_seed(seed)
        yield
