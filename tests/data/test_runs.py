"""Run-length masks, decoded as pycocotools decodes them; malformed ones are refused."""

import random

import numpy as np
from pycocotools import mask as coco_mask

from spark_bench.data.runs import MaskError, read_runs, runs_extent


def test_runs_agree_with_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 40, 2).tolist()
        drawn_HW = np.asfortranarray(rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 1]), dtype=np.uint8)
        encoded = coco_mask.encode(drawn_HW)
        size, runs = read_runs({'size': [height, width], 'counts': encoded['counts'].decode()})
        again = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
        assert size == (height, width) and np.array_equal(again, drawn_HW)
        extent = runs_extent(height, runs)
        assert list(extent or (0, 0, 0, 0)) == coco_mask.toBbox(encoded).tolist()


def test_random_text_is_refused_or_fills_the_mask():
    rng = random.Random(0)
    for _ in range(3000):
        text = ''.join(chr(rng.choice([rng.randrange(48, 112), rng.randrange(256)])) for _ in range(rng.randrange(12)))
        try:
            (height, width), runs = read_runs({'size': [3, 5], 'counts': text})
        except MaskError:
            continue
        assert sum(runs) == height * width and min(runs) >= 0
