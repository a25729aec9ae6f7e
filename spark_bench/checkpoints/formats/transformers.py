"""Swin and ViT, the baselines: names of timm, of their authors (Microsoft; MAE) and of OpenMMLab."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F

from spark_bench.checkpoints.formats.base import Adapter, Rules

_TABLES = 'a table of positions, computed from the window size'


def resize_table(table_LH: torch.Tensor, entries: int) -> torch.Tensor:
    """A table of relative positions for another window, by bicubic interpolation as Swin's authors resize theirs.

    Args:
        table_LH: one row a position, (2w - 1)² of them for a window of w; one column a head.
        entries: rows of the result.

    Returns:
        the table ``(entries, heads)``; the one given where either number of rows is no square.
    """
    old, new = math.isqrt(table_LH.shape[0]), math.isqrt(entries)
    if old * old != table_LH.shape[0] or new * new != entries:
        return table_LH
    square = table_LH.float().T.reshape(1, -1, old, old)
    resized = F.interpolate(square, size=(new, new), mode='bicubic', align_corners=False)
    return resized.reshape(-1, entries).T.contiguous().to(table_LH.dtype)


class TimmSwin(Adapter):
    """timm's names: downsampling stands at the beginning of a stage."""

    format, family = 'timm', 'swin'
    anchors: ClassVar[tuple[str, ...]] = ('patch_embed.proj.weight', 'layers.0.blocks.0.attn.qkv.weight')
    absent: ClassVar[tuple[str, ...]] = ('layers.0.downsample.reduction.weight',)
    own = r'(patch_embed|layers|stages)\.|absolute_pos_embed$'
    outside: ClassVar[Rules] = (('head.fc.{p}', 'head.fc.{p}'),)
    dead = {r'.*\.(relative_position_index|attn_mask)': _TABLES, r'mask_token': 'the mask token of SimMIM'}


class OfficialSwin(TimmSwin):
    """Names of microsoft/Swin-Transformer and SimMIM: downsampling stands at the end of the stage before."""

    format = 'official'
    anchors = (*TimmSwin.anchors, *TimmSwin.absent)
    absent = ()
    outside = ()
    rules = (
        *((f'layers.{i}.downsample.{{p}}', f'layers.{i + 1}.downsample.{{p}}') for i in range(3)),
        ('head.{p}', 'head.fc.{p}'),
        ('layers.{i}.blocks.{j}.{p}', 'layers.{i}.blocks.{j}.{p}'),
        ('patch_embed.{p}', 'patch_embed.{p}'),
        ('norm.{p}', 'norm.{p}'),
        # On the outputs of the authors' detectors and segmenters.
        ('norm{i}.{p}', 'norms.{i}.{p}'),
        ('absolute_pos_embed', 'absolute_pos_embed'),
    )


class MMSwin(Adapter):
    """Names of mmdet's and mmpretrain's Swin. Their patch merging reads the 2×2 neighbours channel by channel."""

    format, family, prefix = 'mmpretrain', 'swin', 'backbone.'
    anchors = ('patch_embed.projection.weight', 'stages.0.blocks.0.attn.w_msa.qkv.weight')
    own = TimmSwin.own
    outside = (('head.fc.{p}', 'head.fc.{p}'),)
    dead = {r'.*\.relative_position_index': _TABLES}
    rules = (
        ('patch_embed.projection.{p}', 'patch_embed.proj.{p}'),
        ('patch_embed.norm.{p}', 'patch_embed.norm.{p}'),
        *((f'stages.{i}.downsample.{{p}}', f'layers.{i + 1}.downsample.{{p}}') for i in range(3)),
        ('stages.{i}.blocks.{j}.attn.w_msa.{p}', 'layers.{i}.blocks.{j}.attn.{p}'),
        ('stages.{i}.blocks.{j}.ffn.layers.0.0.{p}', 'layers.{i}.blocks.{j}.mlp.fc1.{p}'),
        ('stages.{i}.blocks.{j}.ffn.layers.1.{p}', 'layers.{i}.blocks.{j}.mlp.fc2.{p}'),
        ('stages.{i}.blocks.{j}.norm{k}.{p}', 'layers.{i}.blocks.{j}.norm{k}.{p}'),
        ('norm{i}.{p}', 'norms.{i}.{p}'),
    )
    final_norm = 'norms.3.', 'norm.'

    def value_in(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return self._swap(name, value, (-1, 2, 2))

    def value_out(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return self._swap(name, value, (2, 2, -1))

    @staticmethod
    def _swap(name, value, sides):
        """Between (…, C, row, column) here and the canonical (…, column, row, C): see PatchMerging of either side."""
        if '.downsample.' not in name or value.dim() == 0 or value.shape[-1] % 4:
            return value  # a downsampling of another shape is of no use in either layout, and will be refused
        return value.unflatten(-1, sides).movedim((-1, -2, -3), (-3, -2, -1)).flatten(-3)


class TimmViT(Adapter):
    """timm's names, which are MAE's as well."""

    format, family = 'timm', 'vit'
    anchors = ('pos_embed', 'patch_embed.proj.weight', 'blocks.0.attn.qkv.weight')
    own = r'(patch_embed|blocks|layers|norm_pre)\.|\w+_(token|embed)$'
    outside = (('head.fc.{p}', 'head.{p}'),)
    dead = {r'decoder_.*|mask_token': 'the decoder of MAE'}


class MMViT(Adapter):
    """Names of mmpretrain's VisionTransformer."""

    format, family, prefix = 'mmpretrain', 'vit', 'backbone.'
    anchors = ('pos_embed', 'patch_embed.projection.weight', 'layers.0.attn.qkv.weight')
    own = TimmViT.own
    outside = (('head.layers.head.{p}', 'head.{p}'), ('head.fc.{p}', 'head.{p}'))
    dead = {r'mask_token': 'the mask token of pretraining'}
    rules = (
        ('cls_token', 'cls_token'),
        ('pos_embed', 'pos_embed'),
        ('patch_embed.projection.{p}', 'patch_embed.proj.{p}'),
        ('layers.{i}.ln1.{p}', 'blocks.{i}.norm1.{p}'),
        ('layers.{i}.ln2.{p}', 'blocks.{i}.norm2.{p}'),
        ('layers.{i}.attn.{p}', 'blocks.{i}.attn.{p}'),
        ('layers.{i}.ffn.layers.0.0.{p}', 'blocks.{i}.mlp.fc1.{p}'),
        ('layers.{i}.ffn.layers.1.{p}', 'blocks.{i}.mlp.fc2.{p}'),
        ('ln1.{p}', 'norm.{p}'),
        ('ln2.{p}', 'fc_norm.{p}'),
    )
