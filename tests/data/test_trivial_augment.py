"""TrivialAugment: shears and solarize as torchvision 0.11.1 had them, all else as torchvision has it now."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode, TrivialAugmentWide

from spark_bench.data.trivial_augment import TrivialAugment

BICUBIC = dict(interpolation=InterpolationMode.BICUBIC)
NAMES = list(TrivialAugmentWide()._augmentation_space(31))
SEEDS = range(400)


def image(seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*rng.integers(20, 60, 2), 3), dtype=np.uint8))


def drawn(seed):
    """The operation, its level of 0 to 30 and its sign: three random numbers, the last only where there is a sign."""
    torch.manual_seed(seed)
    name = NAMES[int(torch.randint(len(NAMES), (1,)))]
    level = int(torch.randint(31, (1,)))
    return name, level, -1 if torch.randint(2, (1,)) else 1


def augmented(augment, seed):
    torch.manual_seed(seed)
    return np.asarray(augment(image(seed)))


def sheared(name, level, sign, seed):
    """About the centre, by the strength as an angle in radians; Pillow wants the inverse map."""
    slope = math.tan(sign * float(np.float32(0.99) * level / 30))
    original = image(seed)
    width, height = original.size
    matrix = (1, slope, -slope * height / 2, 0, 1, 0) if name == 'ShearX' else (1, 0, 0, slope, 1, -slope * width / 2)
    return original.transform(original.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


@pytest.mark.parametrize('name', ['ShearX', 'ShearY'])
def test_shears_are_about_the_centre_by_an_angle(name):
    seeds = [seed for seed in SEEDS if drawn(seed)[0] == name]
    assert len({drawn(seed)[1] for seed in seeds}) > 10
    far = 0
    for seed in seeds:
        found, expected = augmented(TrivialAugment(**BICUBIC), seed), sheared(*drawn(seed), seed)
        # A sum in another order moves a point by 1e-15, and a grey value by one.
        assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1, seed
        now = augmented(TrivialAugmentWide(**BICUBIC), seed).astype(int)
        far += np.abs(now - np.asarray(expected)).max() > 1
    assert far > len(seeds) / 2, 'the test could not tell the two apart'


def test_solarize_draws_from_256():
    seeds = [seed for seed in SEEDS if drawn(seed)[0] == 'Solarize']
    assert len(seeds) > 10
    for seed in seeds:
        threshold = 256 - 256 * drawn(seed)[1] / 30
        expected = ImageOps.solarize(image(seed), threshold)
        assert np.array_equal(augmented(TrivialAugment(**BICUBIC), seed), expected), seed


def test_every_other_operation_is_torchvisions():
    seen = set()
    for seed in SEEDS:
        name = drawn(seed)[0]
        if name not in ('ShearX', 'ShearY', 'Solarize'):
            seen.add(name)
            theirs = augmented(TrivialAugmentWide(**BICUBIC), seed)
            assert np.array_equal(augmented(TrivialAugment(**BICUBIC), seed), theirs), (seed, name)
    assert len(seen) == 11
