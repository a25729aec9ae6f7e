"""Backbones in OpenMMLab's registry."""

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

from pretrain.densify import ChannelLayerNorm
from pretrain.encoder import FeaturePyramid, create_network
from spark_bench import checkpoints


@MODELS.register_module()
class SparKTimm(BaseModule):
    """Any timm convnet as a backbone of four scales.

    A network that normalises with layer norm (ConvNeXt) gets a layer norm of its own on each output, as
    the detection recipes of ConvNeXt have it. These are fresh: no pretraining checkpoint holds them.

    Args:
        arch: timm name.
        weights: checkpoint of the network in timm's names; fresh initialisation when None. It is read
            by :func:`spark_bench.checkpoints.load`, which accounts for every tensor.
        drop_path_rate: stochastic depth.

    Raises:
        InputError: for an unknown name, or a checkpoint that does not fit.
    """

    def __init__(self, arch, weights=None, drop_path_rate=0.0, init_cfg=None):
        super().__init__(init_cfg)
        self.arch, self.weights = arch, weights
        self.pyramid = FeaturePyramid(create_network(arch, drop_path_rate))
        if _uses_layer_norm(self.pyramid):
            self.norms = nn.ModuleList(ChannelLayerNorm(channels) for channels in self.pyramid.channels)
        else:
            self.norms = nn.ModuleList(nn.Identity() for _ in self.pyramid.channels)

    def init_weights(self):
        """Load ``weights``; called by OpenMMLab after the model is built."""
        super().init_weights()
        if self.weights is not None:
            coverage = checkpoints.load(self.pyramid.network, self.weights)
            print_log(f'backbone {self.arch}: {coverage}', logger='current')

    def forward(self, image_B3HW):
        """Return a tuple of four maps ``(B, C, h, w)``, finest first."""
        maps = self.pyramid(image_B3HW)
        return tuple(norm(map_BChw) for norm, map_BChw in zip(self.norms, maps, strict=True))


def _uses_layer_norm(network):
    return not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def pyramid_channels(arch):
    """Channels of the four maps of a timm convnet, finest first, without allocating its weights."""
    with torch.device('meta'):
        return FeaturePyramid(create_network(arch)).channels
