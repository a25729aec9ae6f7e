"""The packed encoder against the reference on a GPU."""

import json

import pytest
import torch
from torch import nn

from pretrain import build_spark, random_mask
from spark_bench import cli

pytestmark = pytest.mark.gpu


def loss_and_gradients(arch, engine, dtype, channels_last):
    torch.manual_seed(0)
    model = build_spark(arch, 224, 0.6, engine=engine, drop_path_rate=0.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # zero-initialised residual branches would pass no gradient on
            nn.init.uniform_(module.weight, 0.5, 1.5)
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):  # where rounding tips a unit over, gradients differ by more
                setattr(module, name, nn.Softplus())
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(4, 3, 224, 224, generator=draw).to('cuda', dtype)
    active = random_mask(4, 7, 0.6, draw).cuda()
    model = model.to('cuda', dtype).train()
    if channels_last:
        model, image = model.to(memory_format=torch.channels_last), image.to(memory_format=torch.channels_last)
    loss = model(image, active)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()
                         if parameter.grad is not None}


@pytest.mark.parametrize('arch', ['resnet50', 'convnext_tiny'])
@pytest.mark.parametrize('dtype, channels_last, tolerance', [
    (torch.float64, False, 1e-9), (torch.float32, False, 2e-3), (torch.float32, True, 2e-3)], ids=str)
def test_packed_and_reference_agree(arch, dtype, channels_last, tolerance, report):
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        ours, gradients = loss_and_gradients(arch, 'packed', dtype, channels_last)
        theirs, expected = loss_and_gradients(arch, 'reference', dtype, channels_last)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = flags
    assert gradients.keys() == expected.keys()
    # Of a bias in front of a norm nothing is left but rounding.
    whole = max(gradient.norm() for gradient in expected.values())
    worst = max(float((gradients[name] - expected[name]).norm() / (expected[name].norm() + 1e-6 * whole))
                for name in expected)
    report(f'packed against reference, {arch}, {dtype}{", channels-last" * channels_last}',
           f'loss differs by {abs(ours / theirs - 1):.0e}, the worst gradient by {worst:.0e}')
    assert abs(ours / theirs - 1) < min(tolerance, 1e-5) and worst < tolerance


@pytest.mark.parametrize('options', [(), ('--amp', '--channels-last')], ids=['float32', 'bfloat16'])
def test_profile_measures_on_the_gpu(options, tmp_path, report):
    path = tmp_path / 'profile.json'
    assert cli.main(['profile', 'resnet50', 'convnext_small', '--device', 'cuda', '--batch-size', '64', '--rounds', '5',
                     '--json', str(path), *options]) == 0
    figures = json.loads(path.read_text())['figures']
    for packed, reference in zip(figures[::2], figures[1::2], strict=True):
        assert packed['value'] == pytest.approx(reference['value'], rel=2e-2)
        report(f'{packed["arch"]}, {packed["part"]}, batch 64, {" ".join(options) or "float32"}',
               f'packed {1e3 * packed["total_s"]:.1f} ms, {packed["peak_bytes"] / 1e9:.2f} GB; '
               f'reference {1e3 * reference["total_s"]:.1f} ms, {reference["peak_bytes"] / 1e9:.2f} GB')
