"""Which device a command computes on."""

import pytest
import torch

from spark_bench import commands
from spark_bench.devices import choose_device, imitates_bfloat16, tell_precision
from spark_bench.errors import InputError


def test_without_a_name_it_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch, 'empty', lambda *size, device, dtype: None)
    for available, device in ((False, 'cpu'), (True, 'cuda')):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda available=available: available)
        assert choose_device() == torch.device(device)
    # Of several processes each has a GPU of its own: it has no number.
    assert choose_device('cuda').index is None


@pytest.mark.parametrize('name', ['abacus', 'cuda', 'cuda:99', 'cpu:x', 'meta'])
def test_a_device_that_is_not_there_is_refused_in_one_line(name, capsys):
    with pytest.raises(InputError, match=f'--device {name!r} is not available here'):
        choose_device(name)
    assert commands.main(['profile', 'resnet18', '--device', name]) == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_bfloat16_that_a_cpu_imitates_is_told_of_where_it_is_asked_for(monkeypatch, capsys):
    # oneDNN takes AVX-512 (bw, vl, dq) or AVX-NE-CONVERT for it; elsewhere torch has nothing but plain loops.
    able = torch.cpu.get_capabilities()
    if able['architecture'] == 'x86_64':
        assert imitates_bfloat16('cpu') == (not (able['avx512_bw'] or able['avx_ne_convert']))
    assert not imitates_bfloat16('cuda')
    for imitates, amp, told in ((True, True, 1), (True, False, 0), (False, True, 0)):
        monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda imitates=imitates: not imitates)
        tell_precision(amp, 'cpu')
        assert capsys.readouterr().err.count('has no instructions for bfloat16') == told
