"""How far the mask survives with and without sparse convolution."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pretrain.encoder import FeaturePyramid, SparseEncoder, create_network
from pretrain.errors import InputError
from pretrain.masking import random_mask
from pretrain.visualize import MaskPattern, mask_patterns
from spark_bench.files import claim_output, write_output
from spark_bench.visualize.compose import compose, figure_path, write_png

RESPONDS, EMPTY = (31, 78, 140), (228, 228, 228)
_HEADINGS = ('convolutions', 'layer', 'stride', 'visible_dense', 'visible_sparse')
CAPTION = (
    'Positions that respond to the visible patches (blue) in {arch}, after that many convolutions larger than '
    '1×1. Dense: masked pixels set to zero. Sparse: visible patches alone.'
)


def draw(
    arch: str, output: str, input_size: int, mask_ratio: float, seed: int, layers: Sequence[int] | None = None
) -> tuple[Path, Path]:
    """Write the image of what :func:`measure` finds, and its figures as CSV beside it; return both paths.

    Raises:
        InputError: as ``measure`` does, or where ``output`` (FILE.png, or a folder) cannot be written.
    """
    path = figure_path(output, 'mask-pattern.png')
    table = claim_output(path.with_suffix('.csv'), ','.join(_HEADINGS).encode(), 'the figures beside --output,')
    dense, sparse = measure(arch, input_size, mask_ratio, seed, layers)
    rows = [[_tile(pattern, input_size) for pattern in patterns] for patterns in (dense, sparse)]
    captions = [[_percent(pattern.fraction) for pattern in patterns] for patterns in (dense, sparse)]
    headings = [str(pattern.layer) if pattern.layer else 'input' for pattern in dense]
    write_png(path, compose(rows, headings, CAPTION.format(arch=arch), ('dense', 'sparse'), captions))
    write_output(table, _to_csv(dense, sparse))
    return path, table


def measure(
    arch: str, input_size: int, mask_ratio: float, seed: int, layers: Sequence[int] | None = None
) -> list[list[MaskPattern]]:
    """Mask patterns of a freshly initialised network under one random mask, by the dense and the packed engine.

    Args:
        arch: timm name.
        input_size: side of the image in pixels, a multiple of the network's stride.
        mask_ratio: fraction of patches hidden.
        seed: of weights, image (noise) and mask; the global random state is not disturbed.
        layers: see :func:`pretrain.visualize.mask_patterns`.

    Returns:
        two lists of :class:`~pretrain.visualize.MaskPattern`: dense, sparse.

    Raises:
        InputError: naming the argument that is wrong.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pyramid = FeaturePyramid(create_network(arch))
        image_B3HW = torch.randn(1, 3, input_size, input_size)
    stride = pyramid.strides[-1]
    if input_size % stride:
        raise InputError(f'--input-size {input_size} is not a multiple of {stride}, the stride of {arch}')
    active_B1ff = random_mask(1, input_size // stride, mask_ratio, torch.Generator().manual_seed(seed))
    return [
        mask_patterns(SparseEncoder(pyramid, engine), image_B3HW, active_B1ff, layers) for engine in ('dense', 'packed')
    ]


def _tile(pattern, side):
    """The pattern in two colours, enlarged to ``(side, side, 3)`` by repeating each position."""
    support_hw = pattern.support_Bhw[0].numpy()
    colours = np.where(support_hw[..., None], np.uint8(RESPONDS), np.uint8(EMPTY))
    return colours.repeat(side // len(support_hw), 0).repeat(side // len(support_hw), 1)


def _percent(fraction):
    text = f'{100 * fraction:.1f} %'
    # A pattern that is not yet full is never called full.
    return '> 99.9 %' if fraction < 1 and text == '100.0 %' else text


def _to_csv(dense, sparse):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(_HEADINGS)
    for a, b in zip(dense, sparse, strict=True):
        writer.writerow([a.layer, a.name, a.stride, f'{a.fraction:.6f}', f'{b.fraction:.6f}'])
    return text.getvalue()
