"""The decoder's joined convolutions against torch's own modules, one after the other."""

import pytest
import torch
from torch import nn

from pretrain import decoder as decoder_room
from pretrain.decoder import JOINT_WIDTH, UNetBlock, UNetDecoder
from pretrain.upsampling import up_convolution


def pair(channels, outputs):
    torch.manual_seed(0)
    up_sample = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
    return up_sample, nn.Conv2d(channels, outputs, 3, padding=1, bias=False)


@pytest.mark.parametrize('side', [(5, 7), (2, 1), (1, 1)])
def test_joined_convolutions_equal_the_two_modules_with_all_gradients(side):
    up_sample, convolution = (module.double() for module in pair(6, 5))
    x_Bchw = torch.randn(2, 6, *side, dtype=torch.float64, requires_grad=True)
    joined, plain = up_convolution(up_sample, convolution, x_Bchw), convolution(up_sample(x_Bchw))
    torch.testing.assert_close(joined, plain, rtol=1e-12, atol=1e-12)
    sources = [x_Bchw, up_sample.weight, up_sample.bias, convolution.weight]
    weighting = torch.randn_like(plain)
    for ours, theirs in zip(*(torch.autograd.grad(y, sources, weighting) for y in (joined, plain)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_joined_convolutions_in_bfloat16_are_no_further_from_float64_than_the_two_modules():
    up_sample, convolution = pair(48, 48)
    x_Bchw = torch.randn(2, 48, 12, 12)
    with torch.autocast('cpu', torch.bfloat16):
        joined, plain = up_convolution(up_sample, convolution, x_Bchw), convolution(up_sample(x_Bchw))
    exact = convolution.double()(up_sample.double()(x_Bchw.double()))
    assert joined.dtype == torch.bfloat16
    assert (joined - exact).norm() <= (plain - exact).norm()


def decoded(stepwise, memory_format):
    """Image, gradients and running statistics of a decoder with wide and narrow blocks."""
    torch.manual_seed(0)
    decoder = UNetDecoder(8, 4 * JOINT_WIDTH, stepwise).double().to(memory_format=memory_format)
    maps = [
        torch.randn(2, width, 2**i, 2**i, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
        for i, width in enumerate(decoder.widths[:3])
    ]
    image = decoder(maps)
    (image * torch.randn(image.shape, dtype=image.dtype)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in decoder.named_parameters()}
    return image, [feature.grad for feature in maps], gradients, dict(decoder.named_buffers())


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_the_decoder_equals_its_modules_called_one_after_the_other(memory_format, monkeypatch):
    monkeypatch.setattr(decoder_room, 'JOINT_POSITIONS', 1)
    assert min(UNetDecoder(8, 4 * JOINT_WIDTH).widths[:3]) <= JOINT_WIDTH, 'a narrow block is among them'
    joined, stepwise = decoded(False, memory_format), decoded(True, memory_format)
    torch.testing.assert_close(joined, stepwise, rtol=1e-11, atol=1e-11)


def test_every_module_is_called_stepwise_and_only_then(monkeypatch):
    monkeypatch.setattr(decoder_room, 'JOINT_POSITIONS', 8)
    calls = {}
    for stepwise in (False, True):
        decoder = UNetDecoder(2, 8, stepwise)
        called = calls[stepwise] = []
        for module in decoder.modules():
            module.register_forward_hook(lambda module, *_, called=called: called.append(type(module)))
        decoder([torch.randn(2, 8, 2, 2)])
    assert nn.ConvTranspose2d in calls[True] and nn.ConvTranspose2d not in calls[False]
    assert calls[True].count(nn.Conv2d) == 3 and calls[True].count(nn.BatchNorm2d) == 2


def test_blocks_of_few_positions_are_computed_as_they_stand(monkeypatch):
    monkeypatch.setattr(decoder_room, 'up_convolution', lambda *_: pytest.fail('computed as one'))
    UNetBlock(8)(torch.randn(2, 8, 4, 4))
