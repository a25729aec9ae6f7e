"""Encoders of networks that have layers behind their last map, of which a pretraining knows nothing."""

import pytest
import torch

from pretrain.encoder import FeaturePyramid, behind_the_maps, create_network
from spark_bench import checkpoints
from spark_bench.errors import InputError
from spark_bench.models.classifier import SparKClassifier
from spark_bench.probes.features import build_backbone


@pytest.fixture(params=['efficientnet_b0', 'mobilenetv3_small_050', 'resnetv2_50', 'vgg11_bn'])
def encoder(request, tmp_path):
    torch.manual_seed(0)
    pyramid = FeaturePyramid(create_network(request.param)).eval()
    checkpoints.save(pyramid.network, tmp_path / 'encoder.safetensors', {'arch': request.param})
    return request.param, tmp_path / 'encoder.safetensors', pyramid


def test_features_are_those_of_the_last_map(encoder):
    arch, path, pyramid = encoder
    network, image_B3HW = build_backbone(arch, path), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = network.forward_head(network.forward_features(image_B3HW), pre_logits=True)
        wanted = pyramid(image_B3HW)[-1].mean((2, 3))
    assert features.flatten(1).shape == wanted.shape and torch.allclose(features.flatten(1), wanted, atol=1e-5)


def test_fine_tuning_starts_the_rest_fresh(encoder):
    arch, path, _ = encoder
    model = SparKClassifier(arch, 3, weights=path)
    model.init_weights()
    wanted, found = checkpoints.read_tensors(path), model.backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert found.keys() - wanted.keys() >= behind_the_maps(arch)


def test_a_file_that_lacks_a_part_of_the_rest_is_incomplete(tmp_path):
    network = create_network('efficientnet_b0')
    state = {name: value for name, value in network.state_dict().items() if name != 'bn2.bias'}
    torch.save({'state_dict': state, 'arch': 'efficientnet_b0'}, tmp_path / 'w.pth')
    with pytest.raises(InputError, match=r'missing from the file \(bn2\.bias\)'):
        checkpoints.load(network, tmp_path / 'w.pth')
