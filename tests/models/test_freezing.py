"""A frozen backbone: no weight and no statistic of it changes, whatever trains behind it."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from spark_bench.models.backbones import SparKTimm
from spark_bench.models.detection_backbones import SparKConvNeXt, SparKResNet, SparKSwin
from spark_bench.models.vit import SparKViT

BACKBONES = {
    'resnet': lambda **more: SparKResNet('resnet18', drop_path_rate=0.5, **more),
    'convnext': lambda **more: SparKConvNeXt('convnext_atto', drop_path_rate=0.5, **more),
    'swin': lambda **more: SparKSwin('swin_tiny', drop_path_rate=0.5, **more),
    'vit': lambda **more: SparKViT('vit_tiny', input_size=64, drop_path_rate=0.5, **more),
    'timm': lambda **more: SparKTimm('test_resnet', drop_path_rate=0.5, **more),
}


class Detector(nn.Module):
    """A backbone, and one convolution with a norm behind its last map."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        with torch.no_grad():
            width = backbone(torch.zeros(2, 3, 64, 64))[-1].shape[1]
        self.head = nn.Sequential(nn.Conv2d(width, 4, 1), nn.BatchNorm2d(4))

    def forward(self, image_B3HW):
        return self.head(self.backbone(image_B3HW)[-1])


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('constructor', [None, 'SparKLayerDecay'])
def test_only_what_is_behind_a_frozen_backbone_learns(name, constructor):
    torch.manual_seed(0)
    model = Detector(BACKBONES[name](frozen=True))
    model.eval()
    model.train()
    decay = dict(constructor=constructor, paramwise_cfg=dict(decay_rate=0.6)) if constructor else {}
    wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.5), **decay)
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image_B3HW = torch.randn(2, 3, 64, 64)
    outputs = []
    for _ in range(2):
        outputs.append(model.backbone(image_B3HW)[-1])
        wrapper.update_params(model(image_B3HW).square().sum())
    assert torch.equal(*outputs), 'nothing is dropped, and no statistic of the batch enters'
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not [key for key in changed if key.startswith('backbone.')]
    assert {key for key in before if key.startswith('head.')} == changed
    assert not any(module.training for module in model.backbone.modules()) and model.head.training


@pytest.mark.parametrize('name', BACKBONES)
def test_one_that_is_not_frozen_learns(name):
    backbone = BACKBONES[name]()
    backbone.train()
    assert backbone.training and any(parameter.requires_grad for parameter in backbone.parameters())
