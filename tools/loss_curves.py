#!/usr/bin/env python3
"""Train SparK for some hundred updates by each fast path and by the plain definition, and compare the losses.

python tools/loss_curves.py IMAGES [--arch resnet50] [--side 96] [--batch 16] [--updates 300]
    [--paths PATH …] [--against PATH] [--output FILE.svg]

All begin at the same weights and see the same images under the same masks. The plain definition is the reference
engine in float32, the decoder module by module and timm's LAMB. Prints how far each path's loss is from it, relative,
over the first ten updates, at most over all, and in the mean of the last fifty; draws the curves.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import timm.optim
import torch

from pretrain.encoder import build_encoder
from pretrain.masking import random_mask
from pretrain.spark import SparK
from spark_bench.data.pretraining import Images
from spark_bench.training.optimizers import Lamb

# From name to engine, precision, bfloat16 autocast, channels-last, optimizer, compiled.
PATHS: dict[str, tuple[str, torch.dtype, bool, bool, Callable, bool]] = {
    'reference': ('reference', torch.float32, False, False, timm.optim.Lamb, False),
    'reference, float64': ('reference', torch.float64, False, False, timm.optim.Lamb, False),
    'packed': ('packed', torch.float32, False, False, Lamb, False),
    'packed, float64': ('packed', torch.float64, False, False, Lamb, False),
    'packed, bfloat16, channels-last': ('packed', torch.float32, True, True, Lamb, False),
    'packed, compiled': ('packed', torch.float32, False, False, Lamb, True),
}
PEAK, WARM_UP, DECAY = 1e-3, 40, 0.04
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


def batches(images: Images, batch: int, updates: int, seed: int) -> Iterator[torch.Tensor]:
    """Augmented images of each update, normalised: float32 (``batch``, 3, P, P), the same for a seed."""
    order = np.random.RandomState(seed)
    for _ in range(updates):
        chosen = order.randint(0, len(images), batch)
        pixels = torch.stack([images[int(order.randint(2**31)), int(index)]['inputs'] for index in chosen])
        yield (pixels - MEAN[:, None, None]) / STD[:, None, None]


def train(path: str, arch: str, side: int, images: Images, batch: int, updates: int, seed: int = 0) -> list[float]:
    """Losses of the updates of one path."""
    engine, precision, autocast, channels_last, optimizer, compiled = PATHS[path]
    torch.manual_seed(seed)
    model = SparK(build_encoder(arch, engine), side, decoder_width=128).train().to(precision)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if compiled:
        model.compile()
    step = optimizer(model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=DECAY, max_grad_norm=5.0)
    masks, losses = torch.Generator().manual_seed(seed), []
    for number, pixels in enumerate(batches(images, batch, updates, seed)):
        for group in step.param_groups:
            group['lr'] = PEAK * min(1.0, (number + 1) / WARM_UP)
        active = random_mask(batch, model.grid, model.mask_ratio, masks)
        with torch.autocast('cpu', torch.bfloat16) if autocast else nullcontext():
            loss = model(pixels.to(precision), active)
        step.zero_grad()
        loss.backward()
        step.step()
        losses.append(loss.item())
    return losses


def deviations(losses: list[float], reference: list[float]) -> tuple[float, float, float]:
    """Relative: the largest of the first ten updates, the largest of all, of the means of the last fifty."""
    ours, theirs = np.array(losses), np.array(reference)
    apart = np.abs(ours / theirs - 1)
    return apart[:10].max(), apart.max(), abs(ours[-50:].mean() / theirs[-50:].mean() - 1)


def draw(curves: dict[str, list[float]], title: str, output: Path) -> None:
    """The losses above, their relative difference from the first of them below."""
    import matplotlib

    matplotlib.use('Agg')
    matplotlib.rcParams['svg.hashsalt'] = 'loss curves'
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 6), sharex=True, layout='constrained')
    first = np.array(next(iter(curves.values())))
    for number, (name, losses) in enumerate(curves.items()):
        above.plot(losses, label=name, linewidth=1)
        if number:
            below.semilogy(np.abs(np.array(losses) / first - 1), color=f'C{number}', linewidth=1)
    above.set(title=title, ylabel='loss')
    below.set(xlabel='update', ylabel='relative difference')
    above.legend()
    figure.savefig(output, metadata={'Date': None} if output.suffix == '.svg' else None)


def main() -> int:
    """Train, print, draw; exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('images', metavar='IMAGES', help='folder of images')
    parser.add_argument('--arch', default='resnet50', metavar='NAME')
    parser.add_argument('--side', type=int, default=96, metavar='P', help='of the images, in pixels')
    parser.add_argument('--batch', type=int, default=16, metavar='N')
    parser.add_argument('--updates', type=int, default=300, metavar='N')
    parser.add_argument(
        '--paths', nargs='+', choices=PATHS, default=['packed', 'packed, bfloat16, channels-last'], metavar='PATH'
    )
    parser.add_argument('--against', choices=PATHS, default='reference', metavar='PATH')
    parser.add_argument('--output', type=Path, metavar='FILE')
    args = parser.parse_args()
    images, curves = Images(args.images, args.side), {}
    for path in dict.fromkeys([args.against, *args.paths]):
        curves[path] = train(path, args.arch, args.side, images, args.batch, args.updates)
        first, most, last = deviations(curves[path], curves[args.against])
        print(f'{args.arch}, {path}: {first:.1e} in 10 updates, {most:.1e} at most, {last:.1e} at the end', flush=True)
    if args.output:
        draw(curves, f'{args.arch}, {args.side} px, batch {args.batch}, one seed', args.output)
    return 0


if __name__ == '__main__':
    sys.exit(main())
