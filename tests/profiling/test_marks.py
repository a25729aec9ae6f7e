"""Where the seconds of a step are booked, and what its operations are counted to ask for."""

import time

import pytest
import torch
from torch import nn

from pretrain import build_spark
from pretrain.encoder import FeaturePyramid, create_network
from spark_bench.profiling.limits import Device, count, peak_bytes
from spark_bench.profiling.marks import Marks, mark_stages

CPU = torch.device('cpu')


class Sleep(torch.autograd.Function):
    """The same tensor, after a while; and so its gradient."""

    @staticmethod
    def forward(ctx, x, forward_s, backward_s):
        ctx.backward_s = backward_s
        time.sleep(forward_s)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.backward_s)
        return gradient, None, None


class Sleeper(nn.Module):
    def __init__(self, forward_s, backward_s):
        super().__init__()
        self.seconds = forward_s, backward_s

    def forward(self, x):
        return Sleep.apply(x, *self.seconds)


def test_seconds_are_booked_on_the_part_that_takes_them_in_either_direction():
    slept = {'encoder': (0.10, 0.20), 'densify': (0.30, 0.05), 'decoder': (0.05, 0.40)}
    parts = {name: Sleeper(*seconds) for name, seconds in slept.items()}
    marks = Marks(CPU)
    for name, part in parts.items():
        marks.watch(name, part)
    start = time.perf_counter()
    marks.start()
    time.sleep(0.1)
    marks.note(ends=('load', ''))
    x = torch.ones(1, requires_grad=True)
    for part in parts.values():
        x = part(x)
    loss = Sleep.apply(x, 0.1, 0.1).sum()
    marks.note(ends=('forward', 'loss'), begins=('backward', 'loss'))
    loss.backward()
    marks.note(begins=('optimizer', ''))
    time.sleep(0.1)
    marks.note(ends=('optimizer', ''))
    whole = time.perf_counter() - start
    seconds = marks.seconds()
    expected = {('load', ''): 0.1, ('optimizer', ''): 0.1, ('forward', 'loss'): 0.1, ('backward', 'loss'): 0.1}
    for name, times in slept.items():
        expected |= dict(zip((('forward', name), ('backward', name)), times, strict=True))
    assert seconds.keys() == expected.keys()
    assert all(seconds[key] >= expected[key] for key in expected)
    assert sum(seconds.values()) == pytest.approx(whole, abs=0.02)


def test_maps_that_are_made_before_the_decoder_takes_any_are_booked_on_their_own_part():
    marks = Marks(CPU)
    densify, decoder = [Sleeper(0.02, 0.2) for _ in range(3)], [Sleeper(0.02, 0.1) for _ in range(3)]
    for part in densify:
        marks.watch('densify', part)
    for number, part in enumerate(decoder, start=1):
        marks.watch(f'decoder {number}', part)
    features = [torch.ones(1, requires_grad=True) for _ in densify]
    marks.start()
    maps = [part(feature) for part, feature in zip(densify, features, strict=True)]
    x = maps[0]
    for number, part in enumerate(decoder):
        x = part(x + maps[number] if number else x)
    marks.note(ends=('forward', 'loss'), begins=('backward', 'loss'))
    x.sum().backward()
    marks.note(begins=('optimizer', ''))
    seconds = marks.seconds()
    assert seconds['backward', 'densify'] >= 3 * 0.2 and seconds['forward', 'densify'] >= 3 * 0.02
    assert all(seconds['backward', f'decoder {number}'] >= 0.1 for number in (1, 2, 3))


def test_an_earlier_step_is_forgotten():
    marks = Marks(CPU)
    for pause in (0.2, 0.0):
        marks.start()
        time.sleep(pause)
        marks.note(ends=('load', ''))
    assert marks.seconds()['load', ''] < 0.2


@pytest.mark.parametrize('arch', ['test_resnet', 'test_convnext'])
@pytest.mark.parametrize('engine', ['packed', 'reference'])
def test_a_marked_network_computes_the_same_and_notes_every_stage(arch, engine):
    torch.manual_seed(0)
    plain = build_spark(arch, 64, 0.5, engine=engine, decoder_width=32)
    marks = Marks(CPU)
    pyramid = FeaturePyramid(create_network(arch))
    mark_stages(pyramid.network, marks)
    marked = build_spark(pyramid, 64, 0.5, engine=engine, decoder_width=32)
    for ours, theirs in zip(marked.parameters(), plain.parameters(), strict=True):
        ours.data.copy_(theirs.data)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    active = torch.tensor([[True, False], [False, True]]).expand(2, 1, 2, 2)
    marks.start()
    loss = marked(image, active)
    marks.note(ends=('forward', 'loss'), begins=('backward', 'loss'))
    loss.backward()
    marks.note(begins=('optimizer', ''))
    other = plain(image, active)
    other.backward()
    assert loss == other
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(marked.parameters(), plain.parameters(), strict=True))
    stages = [f'encoder {number}' for number in (1, 2, 3, 4)]
    noted = [part for way, part in marks.seconds() if part in stages]
    # Forward from the first to the last, and back again.
    assert noted == [*stages, *reversed(stages)]


def test_multiply_adds_and_bytes_are_those_of_the_arithmetic():
    x, weight = torch.ones(4, 8, requires_grad=True), torch.ones(8, 16, requires_grad=True)
    image, kernel = torch.ones(2, 3, 10, 10), torch.ones(5, 3, 3, 3)
    forward = count(lambda: x @ weight)
    assert forward.macs == 4 * 8 * 16 and forward.bytes == 4 * (4 * 8 + 8 * 16 + 4 * 16)
    both = count(lambda: (x @ weight).sum().backward())
    assert both.macs == 3 * forward.macs
    assert count(lambda: torch.conv2d(image, kernel)).macs == 2 * 5 * 8 * 8 * 3 * 9
    assert count(lambda: image.view(-1).reshape(2, -1)).bytes == 0
    assert count(lambda: image + 1).bytes == 2 * image.numel() * 4


def test_the_peak_is_of_what_is_in_use_at_a_time():
    def run():
        for _ in range(3):
            torch.ones(2**20, dtype=torch.uint8)
        both = torch.ones(2**20, dtype=torch.uint8), torch.ones(2**20, dtype=torch.uint8)
        return len(both)

    assert 2 * 2**20 <= peak_bytes(run, CPU) < 2.1 * 2**20


def test_a_device_does_what_its_limits_say():
    limits = Device(CPU, amp=False)
    side = 1024
    start = time.perf_counter()
    rate, bandwidth = limits.matrix_rate(), limits.bandwidth()
    took = time.perf_counter() - start
    # Neither operation can have been faster than all of it.
    assert rate >= side**3 / took and bandwidth >= 2 * 2**27 / took


@pytest.mark.parametrize('groups', [1, 2, 8])
@pytest.mark.parametrize('kind', [nn.Conv2d, nn.ConvTranspose2d])
def test_gradients_of_a_convolution_cost_what_it_does_twice_whatever_its_groups(kind, groups):
    module, x_BChw = kind(8, 8, 3, padding=1, groups=groups), torch.randn(2, 8, 5, 5, requires_grad=True)
    forward = count(lambda: module(x_BChw)).macs
    assert forward == 2 * 25 * 8 * (8 // groups) * 9
    assert count(lambda: module(x_BChw).sum().backward()).macs == 3 * forward
