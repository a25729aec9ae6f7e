"""Which device a command computes on."""

import pytest
import torch

from spark_bench import commands
from spark_bench.devices import choose_device
from spark_bench.errors import InputError


def test_without_a_name_it_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch, 'empty', lambda *size, device, dtype: None)
    for available, device in ((False, 'cpu'), (True, 'cuda')):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda available=available: available)
        assert choose_device() == torch.device(device)
    # Of several processes each has a GPU of its own: it has no number.
    assert choose_device('cuda').index is None


@pytest.mark.parametrize('name', ['abacus', 'cuda', 'cuda:99', 'cpu:x'])
def test_a_device_that_is_not_there_is_refused_in_one_line(name, capsys):
    with pytest.raises(InputError, match=f'--device {name!r} is not available here'):
        choose_device(name)
    assert commands.main(['profile', 'resnet18', '--device', name]) == 2
    assert capsys.readouterr().err.count('\n') == 1
