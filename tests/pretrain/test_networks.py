"""Networks without values have what networks of timm have, and object to what those object to."""

import pytest
import timm
import torch

from pretrain.networks import shapes_only


@pytest.mark.parametrize('arch', ['resnet18', 'convnext_atto', 'swin_mini', 'vit_mini', 'efficientnet_b0'])
def test_a_network_of_shapes_has_the_names_and_shapes_of_one_with_values(arch):
    filled = timm.create_model(arch).state_dict()
    with shapes_only():
        hollow = timm.create_model(arch).state_dict()
    assert all(value.is_meta for value in hollow.values())
    assert {name: (value.shape, value.dtype) for name, value in hollow.items()} == {
        name: (value.shape, value.dtype) for name, value in filled.items()
    }


def test_what_does_not_fit_is_refused_there_too():
    with shapes_only():
        network = timm.create_model('vit_mini', dynamic_img_size=False)
        assert network(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)
        with pytest.raises(AssertionError, match='height'):
            network(torch.zeros(1, 3, 128, 128))
        with pytest.raises(RuntimeError, match='broadcast'):
            torch.zeros(2).add_(torch.zeros(3))


def test_outside_of_it_tensors_are_filled_as_ever():
    with shapes_only():
        pass
    assert torch.ones(2).mul_(3).sum() == 6
