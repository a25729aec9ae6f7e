"""The packed encoder against the reference on a GPU."""

import json
from statistics import median

import pytest
import torch

from pretrain import build_spark, decoder, random_mask
from spark_bench import commands

pytestmark = pytest.mark.gpu


def pair(arch, dtype, engines=('packed', 'reference')):
    """The same network with each engine, on the GPU; no branch of it starts at zero."""
    torch.manual_seed(0)
    models = [build_spark(arch, 224, 0.6, engine=engine, drop_path_rate=0.0) for engine in engines]
    for parameter in models[0].parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.2 * torch.rand_like(parameter))
    models[1].load_state_dict(models[0].state_dict(), strict=True)
    return [model.to('cuda', dtype).train() for model in models]


@pytest.mark.parametrize('arch', ['resnet50', 'convnext_tiny'])
@pytest.mark.parametrize(
    'dtype, layout, tolerance',
    [
        (torch.float64, torch.contiguous_format, 1e-9),
        (torch.float32, torch.contiguous_format, 5e-2),
        (torch.float32, torch.channels_last, 5e-2),
    ],
    ids=str,
)
def test_packed_and_reference_agree(arch, dtype, layout, tolerance, report):
    """In float32 rounding tips single ReLUs over, so that gradients differ by more than it."""
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(4, 3, 224, 224, generator=draw).to('cuda', dtype).to(memory_format=layout)
    active = random_mask(4, 7, 0.6, draw).cuda()
    losses, gradients = [], []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for model in pair(arch, dtype):
            model.to(memory_format=layout)
            losses.append(model(image, active))
            losses[-1].backward()
            gradients.append(
                torch.cat(
                    [
                        parameter.grad.flatten()
                        for _, parameter in sorted(model.named_parameters())
                        if parameter.grad is not None
                    ]
                )
            )
    ours, theirs = gradients
    loss, gradient = abs(float(losses[0] / losses[1]) - 1), float((ours - theirs).norm() / theirs.norm())
    report(
        f'packed against reference, {arch}, {dtype}, {layout}',
        f'loss differs by {loss:.0e}, the gradient by {gradient:.0e}',
    )
    assert loss < min(tolerance, 1e-5) and gradient < tolerance


@pytest.mark.parametrize('options', [(), ('--amp', '--channels-last')], ids=['float32', 'bfloat16'])
def test_profile_measures_on_the_gpu(options, tmp_path, report):
    path = tmp_path / 'profile.json'
    assert (
        commands.main(
            [
                'profile',
                'resnet50',
                'convnext_small',
                '--device',
                'cuda',
                '--batch-size',
                '64',
                '--rounds',
                '5',
                '--json',
                str(path),
                *options,
            ]
        )
        == 0
    )
    figures = json.loads(path.read_text())['figures']
    for packed, reference in zip(figures[::2], figures[1::2], strict=True):
        assert packed['value'] == pytest.approx(reference['value'], rel=2e-2)
        report(
            f'{packed["arch"]}, a training step, batch 64, {" ".join(options) or "float32"}',
            f'packed {1e3 * packed["seconds"]["step"]:.1f} ms, {packed["peak_bytes"] / 1e9:.2f} GB; '
            f'reference {1e3 * reference["seconds"]["step"]:.1f} ms, {reference["peak_bytes"] / 1e9:.2f} GB',
        )


@pytest.mark.timeout(300)
@pytest.mark.parametrize('arch', ['resnet50', 'convnext_tiny'])
def test_a_compiled_step_is_the_eager_one(arch, report):
    """In bfloat16, which both round to at other places; two masks, one graph."""
    draw = torch.Generator().manual_seed(0)
    eager, compiled = pair(arch, torch.float32, engines=('packed', 'packed'))
    compiled.compile(fullgraph=True, dynamic=False)
    for number in range(2):
        image = torch.randn(4, 3, 224, 224, generator=draw).cuda().to(memory_format=torch.channels_last)
        active, losses, norms = random_mask(4, 7, 0.6, draw), [], []
        for model in (eager, compiled):
            model.to(memory_format=torch.channels_last).zero_grad()
            with torch.autocast('cuda', torch.bfloat16):
                losses.append(model(image, active))
            losses[-1].backward()
            norms.append(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())
        loss, norm = (abs(float(pair[1] / pair[0]) - 1) for pair in (losses, norms))
        report(f'compiled against eager, {arch}, mask {number}', f'loss {loss:.0e}, norm of the gradient {norm:.0e}')
        assert loss < 5e-3 and norm < 5e-2


@pytest.mark.timeout(600)
@pytest.mark.parametrize('graphs', [False, True], ids=['launched', 'graphs'])
@pytest.mark.parametrize('joined', [False, True], ids=['apart', 'joined'])
@pytest.mark.parametrize('arch', ['resnet50', 'convnext_base'])
def test_the_time_of_a_compiled_step(arch, joined, graphs, report, monkeypatch):
    """Forward and backward in bfloat16, batch 128: what CUDA graphs and joined convolutions of the decoder bring.

    Each update's gradients are let go before the next, and one mask follows another.
    """
    if joined:
        monkeypatch.setattr(decoder, 'JOINT_DEVICES', ('cpu', 'cuda'))
    draw = torch.Generator().manual_seed(0)
    eager, compiled = pair(arch, torch.float32, engines=('packed', 'packed'))
    how = {'mode': 'reduce-overhead'} if graphs else {}
    compiled.compile(fullgraph=True, dynamic=False, **how)
    image = torch.randn(128, 3, 224, 224, generator=draw).cuda().to(memory_format=torch.channels_last)
    times, losses, before = [], [], torch.cuda.memory_reserved()
    for model in (eager, compiled):
        model.to(memory_format=torch.channels_last)
    for _ in range(14):
        active, events = random_mask(128, 7, 0.6, draw), [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        events[0].record()
        with torch.autocast('cuda', torch.bfloat16):
            losses.append(compiled(image, active))
        events[1].record()
        losses[-1].backward()
        events[2].record()
        torch.cuda.synchronize()
        compiled.zero_grad()
        times.append([events[0].elapsed_time(events[1]), events[1].elapsed_time(events[2])])
    forward, backward = (median(column) for column in zip(*times[4:], strict=True))
    report(
        f'compiled step, {arch}, {"graphs" if graphs else "launched"}, {"joined" if joined else "apart"}',
        f'forward {forward:.1f} ms, backward {backward:.1f} ms, '
        f'{(torch.cuda.memory_reserved() - before) / 1e9:.1f} GB reserved',
    )
    with torch.autocast('cuda', torch.bfloat16), torch.no_grad():
        assert float(losses[-1]) == pytest.approx(float(eager(image, active)), rel=5e-3)
