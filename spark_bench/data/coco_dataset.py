"""mmdet's COCO data set with augmentation that depends on a seed alone."""

import contextlib
import random

import numpy as np
import torch
from mmengine.registry import DATASETS

# While it loads, mmdet prints which optional packages it misses.
with contextlib.redirect_stdout(None):
    from mmdet.datasets import CocoDataset


@DATASETS.register_module()
class SeededCocoDataset(CocoDataset):
    """Takes ``(seed, index)`` from its sampler: the picture is augmented with that seed.

    A resumed run, or one with other data workers, then sees the same pictures. A plain index draws as mmdet does.
    """

    def __getitem__(self, key):
        if not isinstance(key, tuple):
            return super().__getitem__(key)
        seed, index = key
        with _seeded(seed):
            return super().__getitem__(index)


@contextlib.contextmanager
def _seeded(seed):
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
