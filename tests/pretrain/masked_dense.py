"""A masked dense network, written with hooks on timm's own modules: independent of the engines under test."""

import torch
from timm.layers import DropPath, LayerNorm, LayerNorm2d
from torch import nn


class VisibleBatchNorm(nn.Module):
    """Batch norm whose moments are taken over visible positions, from their definition."""

    def __init__(self, norm, active_B1ff):
        super().__init__()
        self.norm, self.active_B1ff = norm, active_B1ff

    def forward(self, x_BChw):
        norm = self.norm
        mask = _mask(self.active_B1ff, *x_BChw.shape[-2:]).to(x_BChw)
        count = mask.sum()
        if norm.training:
            mean_C = (x_BChw * mask).sum((0, 2, 3)) / count
            variance_C = ((x_BChw - mean_C[:, None, None]).square() * mask).sum((0, 2, 3)) / count
            with torch.no_grad():
                norm.running_mean.lerp_(mean_C, norm.momentum)
                norm.running_var.lerp_(variance_C * count / (count - 1), norm.momentum)
        else:
            mean_C, variance_C = norm.running_mean, norm.running_var
        normed = (x_BChw - mean_C[:, None, None]) / (variance_C[:, None, None] + norm.eps).sqrt()
        return (normed * norm.weight[:, None, None] + norm.bias[:, None, None]) * mask


def make_masked_dense(network, active_B1ff):
    """Change ``network`` so that masked positions are zero after each of its operations; return it."""

    def mask_output(module, inputs, output):
        return output * _mask(active_B1ff, *output.shape[-2:])

    def mask_output_channels_last(module, inputs, output):
        return output * _mask(active_B1ff, *output.shape[1:3]).permute(0, 2, 3, 1)

    for path, module in list(network.named_modules()):
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, LayerNorm2d)):
            module.register_forward_hook(mask_output)
        elif isinstance(module, (nn.Linear, LayerNorm, nn.LayerNorm)):
            module.register_forward_hook(mask_output_channels_last)
        elif isinstance(module, nn.BatchNorm2d):
            network.set_submodule(path, VisibleBatchNorm(module, active_B1ff))
        elif isinstance(module, DropPath):
            assert not (module.training and module.drop_prob), 'the reference has no stochastic depth'
    return network


def _mask(active_B1ff, height, width):
    grid = active_B1ff.shape[-1]
    assert height % grid == width % grid == 0
    return nn.functional.interpolate(active_B1ff.float(), (height, width), mode='nearest').to(torch.float64)
