"""ResNets. timm, torchvision and OpenMMLab share the names; they differ in deep stems, prefix and classifier."""

from spark_bench.checkpoints.formats.base import Adapter


class TimmResNet(Adapter):
    """timm's names, which are torchvision's as well; OpenMMLab puts ``backbone.`` before them."""

    format, family = 'timm', 'resnet'
    anchors = ('layer1.0.conv1.weight', 'layer4.0.conv1.weight')
    absent = 'stem.0.weight'
    outside = (('head.fc.{p}', 'fc.{p}'),)
    prefix = ''

    def foreign_name(self, name):
        # As a target, timm's classifier stands in the network itself.
        return name


class MMResNet(Adapter):
    """OpenMMLab's names: prefix ``backbone.``, classifier ``head.fc``."""

    format, family, prefix = 'mmpretrain', 'resnet', 'backbone.'
    anchors = TimmResNet.anchors
    absent = 'stem.0.weight'
    outside = (('head.fc.{p}', 'fc.{p}'),)
    rules = (
        ('conv1.weight', 'conv1.weight'),
        ('bn1.{p}', 'bn1.{p}'),
        ('layer{i}.{j}.conv{k}.weight', 'layer{i}.{j}.conv{k}.weight'),
        ('layer{i}.{j}.bn{k}.{p}', 'layer{i}.{j}.bn{k}.{p}'),
        ('layer{i}.{j}.downsample.{k}.{p}', 'layer{i}.{j}.downsample.{k}.{p}'),
    )


class MMDeepStemResNet(MMResNet):
    """OpenMMLab's ResNetV1c and V1d: the stem of three convolutions is one sequence."""

    anchors = (*TimmResNet.anchors, 'stem.0.weight')
    absent = None
    rules = (
        *((f'stem.{n}.{{p}}', f'conv1.{n}.{{p}}') for n in (0, 1, 3, 4, 6)),
        ('stem.7.{p}', 'bn1.{p}'),
        *MMResNet.rules[2:],
    )
