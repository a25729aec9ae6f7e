"""ResNet-50 in float64 gives what the authors' released code gave: losses, features, statistics, every gradient.

The figures were measured on that code (commit a63e386 with its timm 0.5.4): 224 px, two images, no stochastic depth.
Weights, images and mask are functions of a tensor's name in the authors' format and of its shape, so that nothing but
the figures has to be kept.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain import build_spark
from spark_bench.checkpoints import load
from spark_bench.checkpoints.naming import identify

FOUND = json.loads((Path(__file__).parent / 'authors/resnet50_float64.json').read_text())
VISIBLE = 20  # of 7 x 7 patches


def weight(name, shape):
    """One tensor of the authors' format: normal values, seeded by the name's CRC-32 (31 bits), scaled by its kind."""
    if name.endswith('num_batches_tracked'):
        return torch.zeros(shape, dtype=torch.long)
    value = np.random.RandomState(zlib.crc32(name.encode()) % 2**31).standard_normal(tuple(shape))
    kind = name.rpartition('.')[2]
    if name.startswith('mask_tokens'):
        value = 0.02 * value
    elif kind == 'running_var':
        value = 1 + 0.1 * np.abs(value)
    elif kind == 'running_mean':
        value = 0.1 * value
    elif kind == 'bias':
        value = 0.05 * value
    elif len(shape) == 1:
        value = 1 + 0.1 * value
    else:
        value = value / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def images_and_mask():
    images = np.random.RandomState(7).standard_normal((2, 3, 224, 224)).astype(np.float32)
    draw, visible = np.random.RandomState(11), np.zeros((2, 49), dtype=bool)
    for row in visible:
        row[draw.permutation(49)[:VISIBLE]] = True
    return torch.from_numpy(images).double(), torch.from_numpy(visible.reshape(2, 1, 7, 7))


def norms(named, authors_name):
    return {authors_name[name]: tensor.norm().item() for name, tensor in named if name in authors_name}


@pytest.mark.parametrize('engine', ['packed', pytest.param('reference', marks=pytest.mark.slow)])
def test_every_figure_is_that_of_the_authors_code(engine, tmp_path, monkeypatch):
    torch.save({'module': {name: weight(name, shape) for name, shape in FOUND['shapes'].items()}}, tmp_path / 'all.pth')
    model = build_spark('resnet50', engine=engine, drop_path_rate=0.0)
    load(model, tmp_path / 'all.pth')
    model = model.double()
    theirs, ours = (identify(tuple(names), 'the test').canonical for names in (FOUND['shapes'], model.state_dict()))
    authors_name = {name: {value: key for key, value in theirs.items()}[place] for name, place in ours.items()}
    assert len(authors_name) == len(FOUND['shapes']) == FOUND['n_keys']
    image, active = images_and_mask()

    encode, features = model._encode, []

    def kept(*arguments):
        features[:] = encode(*arguments)
        return features

    monkeypatch.setattr(model, '_encode', kept)

    def close(found, expected):
        assert found == pytest.approx(expected, rel=1e-9)

    with torch.no_grad():
        close(model.eval()(image, active).item(), FOUND['loss_eval'])
    close([feature.norm().item() for feature in features[::-1]], FOUND['feature_norm_eval'])
    loss = model.train()(image, active)
    loss.backward()
    close(loss.item(), FOUND['loss_train'])
    close([feature.norm().item() for feature in features[::-1]], FOUND['feature_norm_train'])
    gradients = norms(((name, parameter.grad) for name, parameter in model.named_parameters()), authors_name)
    assert gradients.keys() == FOUND['grad_norm'].keys()
    # Gradients that vanish by the mathematics (of a bias in front of a batch norm) are rounding, in both.
    assert gradients == pytest.approx(FOUND['grad_norm'], rel=1e-9, abs=1e-9 * FOUND['grad_norm_total']['all'])
    buffers = norms(((name, value) for name, value in model.named_buffers() if value.is_floating_point()), authors_name)
    for expected in (FOUND['running_mean_norm_after'], FOUND['running_var_norm_after']):
        close({name: buffers[name] for name in expected}, expected)
