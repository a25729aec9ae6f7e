"""MAE: mmpretrain's model around a ViT whose name and weights are timm's.

Shape suffixes: B images, L patches of each, p values of a patch.
"""

from typing import TYPE_CHECKING, Any

import torch
from mmengine.registry import MODELS
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from spark_bench.errors import InputError
from spark_bench.models.masked import MaskedModel, describe

# Source: initialize_weights of facebookresearch/mae's models_mae.py, as mmpretrain's config of it writes it.
_XAVIER = [
    dict(type='Xavier', layer='Linear', distribution='uniform'),
    dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
]

if TYPE_CHECKING:
    from mmengine.config import Config


@MODELS.register_module()
class MAEPretrainer(MaskedModel):
    """Masked autoencoder of a plain ViT (He et al., arXiv 2111.06377): ``mmpretrain.MAE``.

    Args:
        arch: timm name of a ViT with class token, such as ``vit_base`` or ``vit_mini``.
        input_size: side of the images in pixels, the one that the network is made for.
        mask_ratio: share of the patches that is hidden, drawn anew for each image in the model.
        decoder_width, decoder_depth, decoder_heads: of the decoder's blocks.
        norm_pix: normalise each target patch by its own mean and deviation.
        xavier: start all linear layers from Xavier's uniform distribution without biases, as the authors do; otherwise
            those that mmpretrain's parts leave have torch's own.
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
        xavier: bool = False,
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
                init_cfg=_XAVIER if xavier else None,
                backbone=dict(
                    type='MAEViT', img_size=side, patch_size=patch, mask_ratio=mask_ratio, arch=_sizes(network)
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


def _sizes(network):
    """Of a ViT of timm, by mmpretrain's names."""
    return dict(
        embed_dims=network.embed_dim,
        num_layers=len(network.blocks),
        num_heads=network.blocks[0].attn.num_heads,
        feedforward_channels=network.blocks[0].mlp.fc1.out_features,
    )


def _describe_vit(arch):
    """timm's ViT, without memory for its weights. Raises InputError for any other network."""
    network = describe(arch)
    if not isinstance(network, VisionTransformer) or network.cls_token is None:
        raise InputError(f'mae pretrains plain ViTs, such as vit_base or vit_mini: {arch} is none')
    return network
