"""Whole detectors from files: every tensor, of its shape and kind of number, or none."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spark_bench.checkpoints.detectors import load_detector
from spark_bench.errors import InputError


def test_weights_of_eight_bits_are_not_taken_for_values(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    sound = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in sound.items()}
    save_file(halves, tmp_path / 'half.safetensors')
    quantised = sound | {'0.weight': torch.randint(-128, 127, (4, 3), dtype=torch.int8)}
    save_file(quantised, tmp_path / 'int8.safetensors')
    with pytest.raises(InputError, match='of another kind of number'):
        load_detector(model, tmp_path / 'int8.safetensors')
    assert all(torch.equal(tensor, sound[name]) for name, tensor in model.state_dict().items())
    load_detector(model, tmp_path / 'half.safetensors')
    assert torch.equal(model.state_dict()['0.weight'], sound['0.weight'].half().float())
