"""Random numbers of one image: whichever process augments it, they are the same."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Within, the generators that augmentations draw from start anew; afterwards they go on as if nothing was drawn.

    These are torch's default generator on the CPU, ``random``'s, and numpy's legacy one.

    Args:
        seed: 0 … 2^63 - 1; numpy takes its lower 32 bits.
    """
    # Not torch.manual_seed: that would start the accelerator's generator anew as well.
    generator = torch.default_generator
    states = generator.get_state(), random.getstate(), np.random.get_state()
    generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    try:
        yield
    finally:
        generator.set_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


class SeededItems:
    """Base of a data set whose augmentation may depend on a seed alone, and on no process.

    An item is asked for by ``(seed, index)``, and is then the same whichever process makes it, or by ``index`` alone,
    which draws from the process's own generators. Either way ``load_item(index)`` makes it.
    """

    def __getitem__(self, key):
        if not isinstance(key, tuple):
            return self.load_item(key)
        seed, index = key
        with drawing_from(seed):
            return self.load_item(index)
