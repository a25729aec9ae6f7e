"""A share of the annotated images of a COCO data set, as experiments with few labels learn from."""

import math
from collections.abc import Collection, Hashable, Mapping

import numpy as np

from spark_bench.errors import InputError


def draw_images(labels: Mapping[str, Collection[Hashable]], fraction: float, seed: int) -> set[str]:
    """Draw a share of the images, in which no category is lost that could be kept.

    The images are shuffled. Drawn are the first N × ``fraction`` of them (halves rounded up, at least one) and, of
    each category that is in 1 / ``fraction`` images or more, the first image that shows it: at 10 % no category in 10
    images or more is lost. On small sets the second part adds a few images, on COCO next to none.
    For one seed, a smaller fraction draws a part of what a larger one draws.

    Args:
        labels: from the name of each of N images to the categories of its objects.
        fraction: above 0, up to 1.
        seed: 0 … 2^32 - 1. What is drawn depends on it, the names and the categories alone, and on no order.

    Returns:
        their names.

    Raises:
        InputError: for another fraction.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise InputError(f'fraction {fraction!r} of the images: give a number above 0, up to 1')
    names = sorted(labels)
    # This generator's stream is frozen for good, unlike that of numpy's newer ones.
    shuffled = [names[place] for place in np.random.RandomState(seed).permutation(len(names))]
    # A share is as exact as it was written: 0.15 * 10 is below 1.5 in binary.
    drawn = set(shuffled[: max(1, math.floor(round(len(names) * fraction, 9) + 0.5))])
    counts: dict[Hashable, int] = {}
    first: dict[Hashable, str] = {}
    for name in shuffled:
        for category in set(labels[name]):
            counts[category] = counts.get(category, 0) + 1
            first.setdefault(category, name)
    return drawn | {first[category] for category, count in counts.items() if round(count * fraction, 9) >= 1}
