"""ConvNeXt and ConvNeXt V2 in the names of timm, of its authors (Meta), of OpenMMLab and of torchvision."""

from typing import ClassVar

import torch

from spark_bench.checkpoints.formats.base import Adapter, Rules


class TimmConvNeXt(Adapter):
    """timm's names. Canonical layout: pointwise weights ``(out, in)``, scales ``(C,)``."""

    format, family = 'timm', 'convnext'
    own = r'(stem|stages|downsample_layers|features|norm_pre)\.'
    anchors: ClassVar[tuple[str, ...]] = ('stem.0.weight', 'stages.0.blocks.0.conv_dw.weight')
    outside: ClassVar[Rules] = (('head.fc.{p}', 'head.fc.{p}'),)

    def value_in(self, name: str, value: torch.Tensor) -> torch.Tensor:
        # Some sizes (atto … nano) use 1×1 convolutions where the others use linear layers.
        if name.endswith(('.mlp.fc1.weight', '.mlp.fc2.weight')) and value.dim() == 4:
            return value.flatten(1)
        if name.endswith(('.gamma', '.mlp.grn.weight', '.mlp.grn.bias')):
            return value.flatten()
        return value


def _stages(depthwise, pointwise):
    """The rules of stem and stages, which the authors and OpenMMLab share but for their words for convolutions."""
    return (
        ('downsample_layers.0.{j}.{p}', 'stem.{j}.{p}'),
        ('downsample_layers.{i}.{j}.{p}', 'stages.{i}.downsample.{j}.{p}'),
        (f'stages.{{i}}.{{j}}.{depthwise}.{{p}}', 'stages.{i}.blocks.{j}.conv_dw.{p}'),
        ('stages.{i}.{j}.norm.{p}', 'stages.{i}.blocks.{j}.norm.{p}'),
        (f'stages.{{i}}.{{j}}.{pointwise}1.{{p}}', 'stages.{i}.blocks.{j}.mlp.fc1.{p}'),
        (f'stages.{{i}}.{{j}}.{pointwise}2.{{p}}', 'stages.{i}.blocks.{j}.mlp.fc2.{p}'),
        ('stages.{i}.{j}.gamma', 'stages.{i}.blocks.{j}.gamma'),
        ('stages.{i}.{j}.grn.gamma', 'stages.{i}.blocks.{j}.mlp.grn.weight'),
        ('stages.{i}.{j}.grn.beta', 'stages.{i}.blocks.{j}.mlp.grn.bias'),
    )


class OfficialConvNeXt(TimmConvNeXt):
    """Names of facebookresearch/ConvNeXt and ConvNeXt-V2, which SparK's authors use too."""

    format = 'official'
    anchors = ('downsample_layers.0.0.weight', 'stages.0.0.dwconv.weight')
    outside = ()
    rules = (
        *_stages('dwconv', 'pwconv'),
        ('norm.{p}', 'head.norm.{p}'),
        ('head.{p}', 'head.fc.{p}'),
        ('norm{i}.{p}', 'norms.{i}.{p}'),
    )

    def value_out(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name.endswith(('.mlp.grn.weight', '.mlp.grn.bias')):
            return value.reshape(1, 1, 1, -1)
        return value


class MMConvNeXt(TimmConvNeXt):
    """Names of mmpretrain's ConvNeXt, the one that mmdet's recipes use; ``norm0`` … ``norm3`` stand on its outputs."""

    format, prefix = 'mmpretrain', 'backbone.'
    anchors = ('downsample_layers.0.0.weight', 'stages.0.0.depthwise_conv.weight')
    rules = (*_stages('depthwise_conv', 'pointwise_conv'), ('norm{i}.{p}', 'norms.{i}.{p}'))
    final_norm = 'norms.3.', 'head.norm.'


class TorchvisionConvNeXt(TimmConvNeXt):
    """Names of torchvision's ConvNeXt: even ``features`` are stem and downsampling, odd ones are stages."""

    format = 'torchvision'
    anchors = ('features.0.0.weight', 'features.1.0.block.0.weight', 'features.1.0.layer_scale')
    outside = ()
    rules = (
        ('features.0.{j}.{p}', 'stem.{j}.{p}'),
        *((f'features.{2 * i}.{{j}}.{{p}}', f'stages.{i}.downsample.{{j}}.{{p}}') for i in (1, 2, 3)),
        *(
            (f'features.{2 * i + 1}.{{j}}.{foreign}', f'stages.{i}.blocks.{{j}}.{canonical}')
            for i in range(4)
            for foreign, canonical in (
                ('block.0.{p}', 'conv_dw.{p}'),
                ('block.2.{p}', 'norm.{p}'),
                ('block.3.{p}', 'mlp.fc1.{p}'),
                ('block.5.{p}', 'mlp.fc2.{p}'),
                ('layer_scale', 'gamma'),
            )
        ),
        ('classifier.0.{p}', 'head.norm.{p}'),
        ('classifier.2.{p}', 'head.fc.{p}'),
    )

    def value_out(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return value.reshape(-1, 1, 1) if name.endswith('.gamma') else value


class HuggingFaceConvNeXt(TimmConvNeXt):
    """Names of Hugging Face's ``ConvNextModel`` and ``ConvNextV2Model``, with a classifier or as a backbone."""

    format = 'huggingface'
    anchors = ('embeddings.patch_embeddings.weight', 'encoder.stages.0.layers.0.dwconv.weight')
    own = r'(embeddings|encoder)\.'
    outside = (
        ('classifier.{p}', 'head.fc.{p}'),
        *((f'hidden_states_norms.stage{i + 1}.{{p}}', f'norms.{i}.{{p}}') for i in range(4)),
    )
    rules = (
        ('embeddings.patch_embeddings.{p}', 'stem.0.{p}'),
        ('embeddings.layernorm.{p}', 'stem.1.{p}'),
        ('encoder.stages.{i}.downsampling_layer.{j}.{p}', 'stages.{i}.downsample.{j}.{p}'),
        *(
            (f'encoder.stages.{{i}}.layers.{{j}}.{foreign}', f'stages.{{i}}.blocks.{{j}}.{canonical}')
            for foreign, canonical in (
                ('dwconv.{p}', 'conv_dw.{p}'),
                ('layernorm.{p}', 'norm.{p}'),
                ('pwconv1.{p}', 'mlp.fc1.{p}'),
                ('pwconv2.{p}', 'mlp.fc2.{p}'),
                ('layer_scale_parameter', 'gamma'),
                ('grn.{p}', 'mlp.grn.{p}'),
            )
        ),
        ('layernorm.{p}', 'head.norm.{p}'),
        *outside,
    )
