"""mmdet's ResNet and Swin and mmpretrain's ConvNeXt, with weights of which every tensor is accounted for.

The networks are the libraries' own, parameter for parameter. What is added: weights from any known format, the layer of
each parameter for layer decay, stochastic depth in ResNets, ResNet-200.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from mmdet.models.backbones.swin import SwinTransformer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models.backbones.convnext import ConvNeXt
from timm.layers import DropPath
from torch.utils.checkpoint import checkpoint

from spark_bench.errors import InputError
from spark_bench.models.backbones import check_choice, check_rate, load_weights
from spark_bench.models.freezing import Freezable
from spark_bench.models.layer_depth import convnext_layer, inner_name, resnet_layer, swin_layer


class _Accounted(Freezable, BaseModule):
    """Stands before a library's backbone that has ``arch``, ``weights`` and ``key_prefix``."""

    def init_weights(self) -> None:
        """Load ``weights``; called by OpenMMLab after the model is built."""
        super().init_weights()
        load_weights(self, self.weights, self.arch, self.key_prefix)


class _DropPathBlock:
    """Stochastic depth on the residual branch, where timm's ResNet has it: behind the last norm."""

    def forward(self, x_BChw):
        if 'drop_path' not in self._modules:
            return super().forward(x_BChw)
        if self.with_cp and x_BChw.requires_grad:
            return self.relu(checkpoint(self._residual, x_BChw, use_reentrant=False))
        return self.relu(self._residual(x_BChw))

    def _residual(self, x_BChw):
        identity = x_BChw if self.downsample is None else self.downsample(x_BChw)
        return identity + self.drop_path(self._branch(x_BChw))


class _BasicBlock(_DropPathBlock, BasicBlock):
    def _branch(self, x_BChw):
        x_BChw = self.relu(self.norm1(self.conv1(x_BChw)))
        return self.norm2(self.conv2(x_BChw))


class _Bottleneck(_DropPathBlock, Bottleneck):
    def _branch(self, x_BChw):
        x_BChw = self.relu(self.norm1(self.conv1(x_BChw)))
        x_BChw = self.relu(self.norm2(self.conv2(x_BChw)))
        return self.norm3(self.conv3(x_BChw))


@MODELS.register_module()
class SparKResNet(_Accounted, ResNet):
    """mmdet's ResNet; see there for further arguments.

    Args:
        arch: ``resnet18``, ``34``, ``50``, ``101``, ``152`` or ``200``; or ``depth``, the number alone.
        weights: checkpoint in any known format; fresh initialisation when None.
        key_prefix: beginning of the names of the network to take, of a file that holds several.
        drop_path_rate: stochastic depth, growing linearly from 0 at the first block.
        norm_eval: keep batch norm in evaluation mode while training. False here, True in mmdet: SparK's recipe trains
            batch statistics.
        frozen: keep weights and statistics, all of them.

    Raises:
        InputError: for an unknown ``arch`` or a wrong rate; from ``init_weights``, for a checkpoint that does not fit.
    """

    arch_settings = {
        18: (_BasicBlock, (2, 2, 2, 2)),
        34: (_BasicBlock, (3, 4, 6, 3)),
        50: (_Bottleneck, (3, 4, 6, 3)),
        101: (_Bottleneck, (3, 4, 23, 3)),
        152: (_Bottleneck, (3, 8, 36, 3)),
        200: (_Bottleneck, (3, 24, 36, 3)),
    }

    def __init__(
        self,
        arch: str | None = None,
        depth: int | None = None,
        weights: Path | str | None = None,
        drop_path_rate: float = 0.0,
        norm_eval: bool = False,
        key_prefix: str | None = None,
        frozen: bool = False,
        **resnet: Any,
    ):
        arch = f'resnet{depth}' if arch is None else arch
        check_choice('SparKResNet', arch, [f'resnet{depth}' for depth in self.arch_settings])
        check_rate(drop_path_rate)
        if drop_path_rate and resnet.get('plugins'):
            raise InputError('SparKResNet has plugins or a drop_path_rate, not both: set drop_path_rate=0')
        super().__init__(depth=int(arch.removeprefix('resnet')), norm_eval=norm_eval, **resnet)
        self.arch, self.weights, self.key_prefix = arch, weights, key_prefix
        blocks = [block for name in self.res_layers for block in getattr(self, name)]
        for index, block in enumerate(blocks):
            rate = drop_path_rate * index / max(1, len(blocks) - 1)
            if rate > 0:
                block.drop_path = DropPath(rate)
        self.freeze(frozen)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """``(layer, layers)`` of a parameter; see :func:`~spark_bench.models.layer_depth.resnet_layer`."""
        return resnet_layer(inner_name(param_name, prefix), self.stage_blocks)


@MODELS.register_module()
class SparKConvNeXt(_Accounted, ConvNeXt):
    """mmpretrain's ConvNeXt with four outputs, each behind a layer norm of its own; see there for further arguments.

    Args:
        arch: ``convnext_tiny``, ``_small``, ``_base``, ``_large``, ``_xlarge`` … (or mmpretrain's name, ``tiny``).
        weights: checkpoint in any known format; fresh initialisation when None. No checkpoint of pretraining holds
            the 8 tensors of the four norms.
        key_prefix: as in :class:`SparKResNet`.
        layer_scale_init_value: where layer scale starts without ``weights``.
        frozen: as in :class:`SparKResNet`; those four norms are frozen too.

    Raises:
        InputError: for an unknown ``arch`` or a wrong rate; from ``init_weights``, for a checkpoint that does not fit.
    """

    def __init__(
        self,
        arch: str,
        weights: Path | str | None = None,
        layer_scale_init_value: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        key_prefix: str | None = None,
        frozen: bool = False,
        **convnext: Any,
    ):
        size = arch.removeprefix('convnext_')
        check_choice('SparKConvNeXt', f'convnext_{size}', [f'convnext_{name}' for name in self.arch_settings])
        check_rate(convnext.get('drop_path_rate', 0.0))
        super().__init__(
            size,
            layer_scale_init_value=layer_scale_init_value,
            out_indices=list(out_indices),
            gap_before_final_norm=False,
            **convnext,
        )
        self.arch, self.weights, self.key_prefix = f'convnext_{size}', weights, key_prefix
        self.freeze(frozen)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """``(layer, layers)`` of a parameter; see :func:`~spark_bench.models.layer_depth.convnext_layer`."""
        name = inner_name(param_name, prefix).replace('downsample_layers.0.', 'stem.')
        name = re.sub(r'^downsample_layers\.(\d)', r'stages.\1.downsample', name)
        name = re.sub(r'^stages\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.', name)
        return convnext_layer(name, self.depths)


@MODELS.register_module()
class SparKSwin(_Accounted, SwinTransformer):
    """mmdet's Swin; see there for further arguments.

    Args:
        arch: ``swin_tiny``, ``swin_small``, ``swin_base``, ``swin_large``, or ``swin_mini``, of small images.
        weights: checkpoint in any known format; fresh initialisation when None. Position tables of another window are
            resized, as SimMIM's (trained with a window of 6) need it.
        key_prefix, frozen: as in :class:`SparKResNet`.

    Raises:
        InputError: for an unknown ``arch`` or a wrong rate; from ``init_weights``, for a checkpoint that does not fit.
    """

    # Channels of the first stage, blocks and heads a stage. Source: microsoft/Swin-Transformer; pretrain.networks.
    sizes = {
        'swin_tiny': (96, (2, 2, 6, 2), (3, 6, 12, 24)),
        'swin_small': (96, (2, 2, 18, 2), (3, 6, 12, 24)),
        'swin_base': (128, (2, 2, 18, 2), (4, 8, 16, 32)),
        'swin_large': (192, (2, 2, 18, 2), (6, 12, 24, 48)),
        'swin_mini': (32, (2, 2, 2, 2), (1, 2, 4, 8)),
    }

    def __init__(
        self,
        arch: str,
        weights: Path | str | None = None,
        key_prefix: str | None = None,
        frozen: bool = False,
        **swin: Any,
    ):
        check_choice('SparKSwin', arch, list(self.sizes))
        check_rate(swin.get('drop_path_rate', 0.0))
        width, depths, heads = self.sizes[arch]
        super().__init__(embed_dims=width, depths=depths, num_heads=heads, **swin)
        self.arch, self.weights, self.key_prefix, self.depths = arch, weights, key_prefix, depths
        self.freeze(frozen)

    def forward(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a tuple of four maps ``(B, C, h, w)``, finest first."""
        return tuple(super().forward(image_B3HW))

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """``(layer, layers)`` of a parameter; see :func:`~spark_bench.models.layer_depth.swin_layer`."""
        return swin_layer(inner_name(param_name, prefix), self.depths)
