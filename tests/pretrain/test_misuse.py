"""Networks of one's own that would be trained as something else are refused when the model is built."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from pretrain import build_spark
from pretrain.encoder import behind_the_maps, build_encoder
from pretrain.errors import InputError
from pretrain.masking import VisibleLayout


class Own(nn.Module):
    channels, strides = [4, 4], [4, 8]

    def __init__(self, block):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 3, 1, 1)
        self.down, self.act, self.block = nn.Conv2d(4, 4, 2, 2), nn.ReLU(inplace=True), block

    def forward(self, image):
        x = self.stem(image)
        x = self.block(self, x)
        return [x, self.down(x)]


def assigned(self, x):
    y = self.conv(x)
    y = self.act(y)
    y = y + x
    return y


def added(self, x):
    y = self.conv(x)
    y.add_(x)
    return y


def activated(self, x):
    y = self.conv(x)
    self.act(y)
    return y + x


def by_function(self, x):
    y = self.conv(x)
    F.relu(y, inplace=True)
    return y + x


def by_name(self, x):
    y = self.conv(x)
    torch.relu_(y)
    return y + x


def test_what_is_assigned_is_computed():
    torch.manual_seed(0)
    network = Own(assigned).double()
    image_B3HW = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    wanted = network(image_B3HW)
    layout = VisibleLayout(torch.ones(1, 1, 2, 2, dtype=torch.bool))
    found = [layout.unpack(x_NCbb) for x_NCbb in build_encoder(network)(image_B3HW, layout)]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize('block', [added, activated, by_function, by_name])
def test_a_statement_that_changes_a_map_in_place_is_refused(block):
    with pytest.raises(InputError, match='in place as a statement.*assign it'):
        build_encoder(Own(block))


@pytest.mark.parametrize('strides', [[4, 16], [4, 12], [8, 4]])
def test_maps_that_do_not_double_are_refused(strides):
    network = Own(assigned)
    network.strides = strides
    with pytest.raises(InputError, match='twice as coarse'):
        build_spark(network)


def test_a_network_of_timm_as_an_object_is_told_how_to_be_given():
    for options in ({}, {'features_only': True}):
        with pytest.raises(InputError, match=r'by its name, or wrap it, FeaturePyramid\(network\)'):
            build_spark(timm.create_model('test_resnet', **options))


def test_what_lies_behind_the_last_map_is_known_by_name():
    assert {name.partition('.')[0] for name in behind_the_maps('tf_efficientnet_b0')} == {'conv_head', 'bn2'}
    assert not behind_the_maps('resnet18') and not behind_the_maps('regnetx_002')
