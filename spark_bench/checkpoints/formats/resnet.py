"""ResNets. timm, torchvision and OpenMMLab share the names; they differ in deep stems, prefix and classifier.

Hugging Face and detectron2 have names of their own; whoever puts the modules of torchvision's ResNet into an
``nn.Sequential`` (lightly, many codes of contrastive learning) has numbers.
"""

from typing import ClassVar

from spark_bench.checkpoints.formats.base import Adapter, Rules


class TimmResNet(Adapter):
    """timm's names, which are torchvision's as well; OpenMMLab puts ``backbone.`` before them."""

    format, family = 'timm', 'resnet'
    anchors: ClassVar[tuple[str, ...]] = ('layer1.0.conv1.weight', 'layer4.0.conv1.weight')
    own = r'(conv\d|bn\d|gn\d|norm\d?|layer\d+|stem)\.'
    outside = (('head.fc.{p}', 'fc.{p}'),)


class MMResNet(TimmResNet):
    """OpenMMLab's names: prefix ``backbone.``, classifier ``head.fc``."""

    format, prefix = 'mmpretrain', 'backbone.'
    rules: ClassVar[Rules] = (
        ('conv1.weight', 'conv1.weight'),
        ('bn1.{p}', 'bn1.{p}'),
        ('layer{i}.{j}.conv{k}.weight', 'layer{i}.{j}.conv{k}.weight'),
        ('layer{i}.{j}.bn{k}.{p}', 'layer{i}.{j}.bn{k}.{p}'),
        ('layer{i}.{j}.downsample.{k}.{p}', 'layer{i}.{j}.downsample.{k}.{p}'),
    )


class MMDeepStemResNet(MMResNet):
    """mmdet's ResNetV1c: the stem of three convolutions is one sequence."""

    anchors = (*TimmResNet.anchors, 'stem.0.weight')
    rules = (
        *((f'stem.{n}.{{p}}', f'conv1.{n}.{{p}}') for n in (0, 1, 3, 4, 6)),
        ('stem.7.{p}', 'bn1.{p}'),
        *MMResNet.rules[2:],
    )


class MMPretrainDeepStemResNet(MMResNet):
    """mmpretrain's ResNetV1c: the stem is three pairs of convolution and norm."""

    anchors = (*TimmResNet.anchors, 'stem.0.conv.weight')
    rules = (
        *((f'stem.{n}.conv.{{p}}', f'conv1.{3 * n}.{{p}}') for n in range(3)),
        *((f'stem.{n}.bn.{{p}}', f'conv1.{3 * n + 1}.{{p}}') for n in range(2)),
        ('stem.2.bn.{p}', 'bn1.{p}'),
        *MMResNet.rules[2:],
    )


class NumberedResNet(Adapter):
    """The modules of torchvision's ResNet in an ``nn.Sequential``: 0 and 1 are the stem, 4 … 7 the stages."""

    format, family = 'numbered', 'resnet'
    anchors = ('4.0.conv1.weight', '7.0.conv1.weight', '0.weight')
    own = r'[0-7]\.'
    rules = (
        ('0.{p}', 'conv1.{p}'),
        ('1.{p}', 'bn1.{p}'),
        *((f'{i + 3}.{{j}}.{{p}}', f'layer{i}.{{j}}.{{p}}') for i in (1, 2, 3, 4)),
    )


class HuggingFaceResNet(Adapter):
    """Names of Hugging Face's ``ResNetModel``, with a classifier or as a backbone."""

    format, family = 'huggingface', 'resnet'
    anchors = ('embedder.embedder.convolution.weight', 'encoder.stages.0.layers.0.layer.0.convolution.weight')
    own = r'(embedder|encoder)\.'
    outside = (('classifier.1.{p}', 'fc.{p}'),)
    rules = (
        ('embedder.embedder.convolution.{p}', 'conv1.{p}'),
        ('embedder.embedder.normalization.{p}', 'bn1.{p}'),
        *(
            (f'encoder.stages.{i}.layers.{{j}}.{foreign}', f'layer{i + 1}.{{j}}.{canonical}')
            for i in range(4)
            for foreign, canonical in (
                ('shortcut.convolution.{p}', 'downsample.0.{p}'),
                ('shortcut.normalization.{p}', 'downsample.1.{p}'),
                *((f'layer.{k}.convolution.{{p}}', f'conv{k + 1}.{{p}}') for k in range(3)),
                *((f'layer.{k}.normalization.{{p}}', f'bn{k + 1}.{{p}}') for k in range(3)),
            )
        ),
        *outside,
    )


class Detectron2ResNet(Adapter):
    """detectron2's names, of its model zoo and of its ImageNet weights in torch's order of colours."""

    format, family = 'detectron2', 'resnet'
    anchors = ('stem.conv1.weight', 'res2.0.conv1.weight', 'res5.0.conv1.weight')
    own = r'(stem\.conv|res\d+)'
    note = (
        "detectron2's networks expect what their config says: most of its zoo takes BGR images of 0 … 255 and "
        'strides in the first 1×1 convolution, which timm does not'
    )
    rules = (
        ('stem.conv1.norm.{p}', 'bn1.{p}'),
        ('stem.conv1.{p}', 'conv1.{p}'),
        *(
            (f'res{i + 1}.{{j}}.{foreign}', f'layer{i}.{{j}}.{canonical}')
            for i in (1, 2, 3, 4)
            for foreign, canonical in (
                ('shortcut.norm.{p}', 'downsample.1.{p}'),
                ('shortcut.{p}', 'downsample.0.{p}'),
                ('conv{k}.norm.{p}', 'bn{k}.{p}'),
                ('conv{k}.{p}', 'conv{k}.{p}'),
            )
        ),
        ('stem.fc.{p}', 'fc.{p}'),
        ('linear.{p}', 'fc.{p}'),
    )
