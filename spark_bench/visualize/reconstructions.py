"""What pretrained models make of masked images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from pretrain.masking import random_mask
from pretrain.visualize import reconstruct
from spark_bench.data.images.decoding import read_from, read_image
from spark_bench.data.images.ignored import demand_apart
from spark_bench.data.images.listing import is_image
from spark_bench.data.images.sources import open_images, spread
from spark_bench.devices import choose_device
from spark_bench.errors import InputError
from spark_bench.files import claim_output
from spark_bench.visualize.compose import OWN, compose, figure_path, write_png
from spark_bench.visualize.models import describe, load_model

BATCH = 8
_TILES = '[0-9][0-9][0-9]-*.png'
CAPTIONS = {
    'original': 'Each masked patch has its mean and contrast from the original, since the loss normalises them away: '
    'the network paints structure alone.',
    'visible': 'Each masked patch has its mean and contrast interpolated from the visible patches: nothing comes from '
    'masked pixels.',
}


def draw(
    weights: Sequence[str],
    data_root: str,
    output: str,
    *,
    labels: Sequence[str] | None = None,
    arch: str | None = None,
    input_size: int | None = None,
    mask_ratio: float | None = None,
    count: int = 6,
    seed: int = 0,
    statistics: str = 'original',
    device: str | None = None,
    write_tiles: bool = False,
) -> Path:
    """Write the figure, with ``write_tiles`` each of its images too, and return the figure's path.

    All else is what the options of that name of ``spark-bench visualize reconstruct`` say.

    Raises:
        InputError: naming the option or the file that is wrong.
    """
    device = choose_device(device)
    files = _describe_all(weights, labels, arch, input_size, mask_ratio)
    pixels_B3HW = load_images(data_root, count, files[0].input_size)
    path = figure_path(output, 'reconstructions.png')
    demand_apart(path.parent, data_root, '--output')
    tiles = path.with_name(f'{path.stem}-tiles')
    for tile in sorted(tiles.glob(_TILES)) if write_tiles else ():
        claim_output(tile, OWN, 'a tile beside --output,')
    models = [load_model(file, device) for file in files]
    _demand_one_grid(files, models)
    results = {
        file.label: _answers(file, model, pixels_B3HW, seed, statistics)
        for file, model in zip(files, models, strict=True)
    }
    columns = _columns(results)
    figure = compose(
        [list(tiles) for tiles in zip(*(tiles for _, tiles in columns), strict=True)],
        [heading for heading, _ in columns],
        f'{", ".join(results)}: {100 * files[0].mask_ratio:g} % masked, seed {seed}. {CAPTIONS[statistics]}',
    )
    write_png(path, figure)
    if write_tiles:
        _write_tiles(tiles, columns)
    return path


def load_images(data_root: Path | str, count: int, side: int) -> torch.Tensor:
    """Read an image, or ``count`` evenly spaced ones of what pretraining takes, as uint8 ``(B, 3, side, side)``.

    The centre square is resized by bicubic interpolation; an image of the right size keeps every pixel.

    Raises:
        InputError: for a file that is no image, or a folder or archive without any.
    """
    if Path(data_root).is_file() and is_image(str(data_root)):
        images = [read_image(data_root)]
    else:
        source = open_images(data_root)
        images = [read_from(source, index) for index in spread(source, count)]
    squares = [ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC) for image in images]
    return torch.from_numpy(np.stack([np.asarray(square) for square in squares])).permute(0, 3, 1, 2)


def _describe_all(weights, asked, arch, input_size, mask_ratio):
    """A :class:`ModelFile` for each of ``weights``, with labels that differ, and one image size and mask ratio."""
    files = [describe(path, arch, input_size, mask_ratio) for path in weights]
    if asked and len(asked) != len(files):
        raise InputError(f'--labels names {len(asked)} methods for {len(files)} files: give one a file')
    if arch is not None and all(file.arch != arch for file in files):
        raise InputError(f'--arch {arch}: {files[0].path} says that it is of {files[0].arch}: leave --arch away')
    labels = asked or [file.label for file in files]
    if max(Counter(labels).values()) > 1:
        if asked or len(set(weights)) < len(files):
            raise InputError('--labels or --weights names the same method twice: each column needs a name of its own')
        labels = weights
    for file in files[1:]:
        for option in ('input_size', 'mask_ratio'):
            first, other = getattr(files[0], option), getattr(file, option)
            if first != other:
                raise InputError(
                    f'{files[0].path} was trained with {option} {first}, {file.path} with {other}: choose '
                    f'one for all with --{option.replace("_", "-")}'
                )
    return [replace(file, label=label) for file, label in zip(files, labels, strict=True)]


def _answers(file, model, pixels_B3HW, seed, statistics):
    """The four images of each image by one model, as dict of uint8 arrays ``(B, H, W, 3)``."""
    # From the seed alone, so the same for every method and device.
    generator = torch.Generator().manual_seed(seed)
    active_B1ff = random_mask(len(pixels_B3HW), model.grid, file.mask_ratio, generator)
    parts = [
        reconstruct(
            model,
            pixels_B3HW[i : i + BATCH],
            active_B1ff[i : i + BATCH],
            mean=file.mean,
            std=file.std,
            statistics=statistics,
        )
        for i in range(0, len(pixels_B3HW), BATCH)
    ]
    return {name: torch.cat([getattr(part, name) for part in parts]).numpy() for name in vars(parts[0])}


def _demand_one_grid(files, models):
    for file, model in zip(files, models, strict=True):
        if model.grid != models[0].grid:
            raise InputError(
                f'{file.arch} has mask patches of another size than {files[0].arch}: draw their images '
                'in figures of their own'
            )


def _columns(results):
    """Heading and images of each column: all four of a single model, or the pasted ones of several side by side."""
    first = next(iter(results.values()))
    if len(results) == 1:
        return [('input' if name == 'original' else name, tiles) for name, tiles in first.items()]
    shown = [('input', first['original']), ('masked', first['masked'])]
    return [*shown, *((label, images['pasted']) for label, images in results.items())]  # which may be called so too


def _write_tiles(folder, columns):
    """The images of this figure; those of an earlier one that had more are taken away."""
    earlier = set(folder.glob(_TILES))
    for column, (heading, tiles) in enumerate(columns):
        name = ''.join(letter if letter.isalnum() or letter in '-_.' else '_' for letter in heading)
        for row, tile in enumerate(tiles):
            path = folder / f'{row:03d}-{column}-{name}.png'
            write_png(path, tile)
            earlier.discard(path)
    for path in earlier:
        path.unlink()
