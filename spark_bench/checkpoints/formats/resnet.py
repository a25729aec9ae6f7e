"""ResNets. timm, torchvision and OpenMMLab share the names; they differ in deep stems, prefix and classifier."""

from spark_bench.checkpoints.formats.base import Adapter


class TimmResNet(Adapter):
    """timm's names, which are torchvision's as well; OpenMMLab puts ``backbone.`` before them."""

    format, family = 'timm', 'resnet'
    anchors = ('layer1.0.conv1.weight', 'layer4.0.conv1.weight')
    outside = (('head.fc.{p}', 'fc.{p}'),)

    def foreign_name(self, name):
        # As a target, timm's classifier stands in the network itself.
        return name


class MMResNet(Adapter):
    """OpenMMLab's names: prefix ``backbone.``, classifier ``head.fc``."""

    format, family, prefix = 'mmpretrain', 'resnet', 'backbone.'
    anchors = TimmResNet.anchors
    outside = (('head.fc.{p}', 'fc.{p}'),)
    rules = (
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
