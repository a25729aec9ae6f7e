"""Run-length masks, decoded as pycocotools decodes them; malformed ones are refused."""

import random
import re

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from spark_bench.data.coco import rle
from spark_bench.data.coco.masks import mask_area
from spark_bench.data.coco.rle import MaskError, first_damaged_mask, read_masks


def test_runs_agree_with_pycocotools():
    rng = np.random.default_rng(0)
    drawn, encoded = [], []
    for _ in range(300):
        height, width = rng.integers(1, 40, 2).tolist()
        drawn.append(np.asfortranarray(rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 1]), dtype=np.uint8))
        encoded.append(coco_mask.encode(drawn[-1]))
    masks = read_masks({**code, 'counts': code['counts'].decode()} for code in encoded)
    for drawn_HW, code, mask in zip(drawn, encoded, masks, strict=True):
        height, width = drawn_HW.shape
        again = np.repeat(np.arange(len(mask.lengths)) % 2, mask.lengths).reshape(width, height).T
        assert mask.size == (height, width) and np.array_equal(again, drawn_HW)
        left, top, right, bottom = mask.extent or (0, 0, 0, 0)
        assert [left, top, right - left, bottom - top] == coco_mask.toBbox(code).tolist()
        assert mask_area(mask) == drawn_HW.sum()


def random_masks(count):
    rng = random.Random(0)
    for _ in range(count):
        text = ''.join(chr(rng.choice([rng.randrange(48, 112), rng.randrange(256)])) for _ in range(rng.randrange(12)))
        yield {'size': [3, 5], 'counts': text}


def test_random_text_is_refused_or_fills_the_mask():
    for mask in read_masks(random_masks(3000)):
        assert isinstance(mask, MaskError) or sum(mask.lengths) == 15 and min(mask.lengths) >= 0


def test_no_mask_depends_on_those_that_are_decoded_with_it(monkeypatch):
    masks = [*random_masks(300), {'size': [1, 2], 'counts': [0, 2]}, [[1, 2]], None, {'counts': '2'}, {'size': [1, 2]}]
    together = list(map(repr, read_masks(masks)))
    monkeypatch.setattr(rle, '_TOGETHER', 1)
    assert list(map(repr, read_masks(masks))) == together


@pytest.mark.parametrize(
    'counts, what',
    [
        ('', 'fill 0 pixels, not 2x1'),
        ('3', 'fill 3 pixels'),
        ('02p', "hold the character 'p'"),
        ('0é', r"character '\\xe9'"),
        ('0\ud800', r"'\\ud800'"),
        ('02Q', 'are cut short'),
        ('OQ ', 'hold a negative run'),
        ('QQQQQQQ0', 'hold a number too large'),
        ([0, 'a'], 'neither a list of run lengths nor text'),
        ([3, -1], 'neither'),
        ([1.0, 1], 'neither'),
    ],
)
def test_the_first_fault_of_a_mask_is_told(counts, what):
    [mask] = read_masks([{'size': [1, 2], 'counts': counts}])
    assert isinstance(mask, MaskError) and re.match(f'whose counts .*{what}|whose counts are {what}', str(mask))


def test_a_mask_is_damaged_exactly_if_its_runs_do_not_fill_it():
    rng = np.random.default_rng(0)
    sizes = [tuple(int(v) for v in rng.integers(1, 90, 2)) for _ in range(300)]
    masks = [(rng.random(size) < rng.random() ** 3).astype(np.uint8) for size in sizes]
    counts = [coco_mask.encode(np.asfortranarray(mask))['counts'] for mask in masks]
    assert first_damaged_mask(counts, sizes) is None
    for index in range(0, 300, 50):
        height, width = sizes[index]
        damaged = sizes[:index] + [(height, width + 1)] + sizes[index + 1 :]
        assert first_damaged_mask(counts, damaged) == index
        assert first_damaged_mask(counts[:index] + [counts[index][:-1]] + counts[index + 1 :], sizes) == index
