"""The plain ViT of ViTDet, for MAE: timm's network with window attention, and weights that are accounted for.

Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection (arXiv 2203.16527), and its
released code, detectron2 projects/ViTDet.
"""

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from timm.models.vision_transformer import init_weights_vit_timm
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn
from torch.utils.checkpoint import checkpoint

from spark_bench.models.backbones import check_choice, check_rate, load_weights
from spark_bench.models.freezing import Freezable
from spark_bench.models.layer_depth import inner_name, vit_layer

_PATCH = 16


@MODELS.register_module()
class SparKViT(Freezable, VisionTransformerSAM):
    """A plain ViT with patches of 16 pixels whose blocks attend within windows, but for four that attend globally.

    Every block adds decomposed relative positions to its attention; their tables are fresh and start at zero. The
    absolute positions stay in the grid of pretraining (14×14, behind the one of the class token, which is not used)
    and are interpolated as the network runs. There is no class token and no norm behind the last block.

    Args:
        arch: ``vit_tiny``, ``vit_small``, ``vit_base``, ``vit_large``, or ``vit_mini``, of small images.
        weights: checkpoint in any known format; fresh initialisation when None. Relative positions are not in it.
        key_prefix: beginning of the names of the network to take, of a file that holds several.
        input_size: side of the images in pixels. A smaller one is padded to this square at the right and at the
            bottom with 0, the mean colour behind the preprocessor; a larger one to whole patches.
        window_size: side of a window in patches; the map is padded to whole windows. 0: every block attends globally.
        global_blocks: numbers of the blocks that attend globally; by default the last of each quarter.
        pretrained_size: side of the images of pretraining in pixels; 224 where None, of ``vit_mini`` 96.
        drop_path_rate: stochastic depth, growing linearly from 0 at the first block.
        frozen_stages: the embedding and this many blocks keep their weights; 0 is the embedding alone, -1 nothing.
        with_cp: activation checkpointing, block by block.
        frozen: keep all weights.

    Raises:
        InputError: for an unknown ``arch`` or a wrong rate; from ``init_weights``, for a checkpoint that does not fit.
    """

    # Channels, blocks, heads. Source: timm.models.vision_transformer; pretrain.networks.
    sizes = {
        'vit_tiny': (192, 12, 3),
        'vit_small': (384, 12, 6),
        'vit_base': (768, 12, 12),
        'vit_large': (1024, 24, 16),
        'vit_mini': (128, 6, 4),
    }

    def __init__(
        self,
        arch: str,
        weights: Path | str | None = None,
        input_size: int = 1024,
        window_size: int = 14,
        global_blocks: Iterable[int] | None = None,
        pretrained_size: int | None = None,
        drop_path_rate: float = 0.1,
        frozen_stages: int = -1,
        with_cp: bool = False,
        key_prefix: str | None = None,
        frozen: bool = False,
    ):
        check_choice('SparKViT', arch, list(self.sizes))
        check_rate(drop_path_rate)
        width, depth, heads = self.sizes[arch]
        if global_blocks is None:
            global_blocks = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
        pretrained_size = pretrained_size or (96 if arch == 'vit_mini' else 224)
        super().__init__(
            img_size=input_size,
            patch_size=_PATCH,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            drop_path_rate=drop_path_rate,
            use_abs_pos=False,
            use_rel_pos=True,
            window_size=window_size,
            global_attn_indexes=tuple(global_blocks),
        )
        # What SAM and classifiers have behind the blocks.
        self.neck, self.head = nn.Identity(), nn.Identity()
        self.arch, self.weights, self.key_prefix, self.input_size = arch, weights, key_prefix, input_size
        self.frozen_stages, self.with_cp = frozen_stages, with_cp
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (pretrained_size // _PATCH) ** 2, width))
        self._freeze()
        self.freeze(frozen)

    def init_weights(self) -> None:
        """Initialise as timm does and load ``weights``; called by OpenMMLab after the model is built."""
        for name, module in self.blocks.named_modules():
            init_weights_vit_timm(module, name)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        load_weights(self, self.weights, self.arch, self.key_prefix)

    def forward(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor]:
        """Return a tuple of one map ``(B, C, H/16, W/16)``, of the padded image."""
        x_BhwC = self.patch_embed(self._pad(image_B3HW))
        x_BhwC = x_BhwC + self._positions(*x_BhwC.shape[1:3])
        for block in self.blocks:
            with_cp = self.with_cp and self.training
            x_BhwC = checkpoint(block, x_BhwC, use_reentrant=False) if with_cp else block(x_BhwC)
        return (x_BhwC.permute(0, 3, 1, 2).contiguous(),)

    def train(self, mode: bool = True) -> 'SparKViT':
        """Switch mode; frozen blocks stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """``(layer, layers)`` of a parameter; see :func:`~spark_bench.models.layer_depth.vit_layer`."""
        return vit_layer(inner_name(param_name, prefix), len(self.blocks))

    def _pad(self, image_B3HW):
        height, width = (max(self.input_size, -(-side // _PATCH) * _PATCH) for side in image_B3HW.shape[-2:])
        return F.pad(image_B3HW, (0, width - image_B3HW.shape[-1], 0, height - image_B3HW.shape[-2]))

    def _positions(self, height, width):
        """Absolute positions ``(1, height, width, C)``, bicubic where the grid is another than in pretraining."""
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        positions_1Chw = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if (height, width) != (side, side):
            positions_1Chw = F.interpolate(positions_1Chw, (height, width), mode='bicubic', align_corners=False)
        return positions_1Chw.permute(0, 2, 3, 1)

    def _freeze(self):
        if self.frozen_stages < 0:
            return
        self.pos_embed.requires_grad = False
        for module in (self.patch_embed, *self.blocks[: self.frozen_stages]):
            module.eval()
            module.requires_grad_(False)
