"""How far AP would scatter with other images: a bootstrap over the images of the evaluation set.

Detections are matched with the truth image by image, so a resample needs no new matching: it only lets each
image count as often as it was drawn. What is left is COCOeval.accumulate, of which AP needs the places of the true
positives alone.
"""

from collections.abc import Sequence

import numpy as np

# Where precision is read, as in COCOeval.Params.
_RECALLS = np.linspace(0, 1, 101)

ImageMatches = tuple[int, np.ndarray, np.ndarray, np.ndarray, int]  # see CategoryMatches


class CategoryMatches:
    """The detections of one category, ordered by score as COCOeval.accumulate orders them.

    Args:
        per_image: one tuple an image that has truth or detections, in ascending order of the image's index:
            (index, scores [D] in descending order, matched [T, D] bool, ignored [T, D] bool, number of objects
            that count), over T overlap thresholds.
        images: number of images in the set.
        thresholds: T.
    """

    def __init__(self, per_image: Sequence[ImageMatches], images: int, thresholds: int) -> None:
        self.objects = np.zeros(images, np.int64)
        self.objects[[entry[0] for entry in per_image]] = [entry[4] for entry in per_image]
        scores = np.concatenate([entry[1] for entry in per_image] or [np.zeros(0)])
        image = np.repeat([entry[0] for entry in per_image], [len(entry[1]) for entry in per_image])
        empty = [np.zeros((thresholds, 0), bool)]
        matched, ignored = (np.concatenate([entry[i] for entry in per_image] or empty, axis=1) for i in (2, 3))
        order = np.argsort(-scores, kind='stable')
        scores, self.image = scores[order], image.astype(np.int64)[order]
        matched, ignored = matched[:, order], ignored[:, order]
        self._hits = _Places(matched & ~ignored)
        self._ignored = _Places(ignored)
        # Two copies of an image follow each other, so its detections of equal score come as a, b, a, b.
        same = (scores[1:] == scores[:-1]) & (self.image[1:] == self.image[:-1])
        starts = np.flatnonzero(np.concatenate([[True], ~same]))[: len(scores)]
        sizes = np.diff(np.append(starts, len(scores)))
        self._tie_start, self._tie_size = np.repeat(starts, sizes), np.repeat(sizes, sizes)

    def precision(self, draws: np.ndarray) -> np.ndarray:
        """Precision at 101 recalls for each threshold, shape [T, 101]; -1 if no object was drawn.

        Equals what COCOeval.accumulate gives for a data set in which image i occurs ``draws[i]`` times.
        """
        objects = int(self.objects @ draws)
        thresholds = len(self._hits.bounds) - 1
        if not objects:
            return np.full((thresholds, len(_RECALLS)), -1.0)
        copies = draws[self.image]
        starts = np.cumsum(copies) - copies
        hits, ignored = (self._drawn(places, copies, starts) for places in (self._hits, self._ignored))
        needed = np.searchsorted(np.arange(1, objects + 1) / objects, _RECALLS)
        result = np.zeros((thresholds, len(_RECALLS)))
        for row, hit, skipped in zip(result, hits, ignored, strict=True):
            found = np.arange(1.0, len(hit) + 1)
            counted = hit + 1 - np.searchsorted(skipped, hit)
            precision = found / (counted + np.spacing(1))
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            reached = np.searchsorted(needed, len(hit))
            row[:reached] = envelope[needed[:reached]]
        return result

    def _drawn(self, places, copies, starts):
        """For each threshold, the ascending ranks of these detections among all that were drawn."""
        times = copies[places.index]
        index = np.repeat(places.index, times)
        copy = np.arange(len(index)) - np.repeat(np.cumsum(times) - times, times)
        tie = self._tie_start[index]
        ranks = starts[tie] + copy * self._tie_size[index] + (index - tie)
        bounds = np.concatenate([[0], np.cumsum(times)])[places.bounds]
        return [np.sort(ranks[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


class _Places:
    """Where a [T, D] array is true: the columns row by row, and where each row begins among them."""

    def __init__(self, array):
        rows, self.index = np.nonzero(array)
        self.bounds = np.searchsorted(rows, np.arange(len(array) + 1))


def average_precision(categories: Sequence[CategoryMatches], draws: np.ndarray) -> float | None:
    """AP of a resample in percent, or None if no object was drawn.

    Args:
        categories: list of :class:`CategoryMatches`.
        draws: how often each image was drawn, int [images].
    """
    # The axes and thus the order of summation are those of COCOeval.summarize.
    return mean_percent(np.stack([category.precision(draws) for category in categories], axis=2))


def mean_percent(values: np.ndarray) -> float | None:
    """Mean in percent of the shares that are known, or None; -1 stands for what is not."""
    valid = values[values > -1]
    return 100.0 * float(np.mean(valid)) if len(valid) else None


def interval(
    categories: Sequence[CategoryMatches], images: int, resamples: int, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval of AP over resampled images (Efron & Tibshirani 1993, ch. 13).

    Each resample draws as many images as there are, with replacement. Resamples without any object do not count.
    The same seed draws the same images whatever was detected, so intervals of two models are comparable.

    Args:
        categories: list of :class:`CategoryMatches`.
        images: number of images in the set.
        resamples: how many to draw, at least 1.
        seed: of the draws.

    Returns:
        (low, high) in percent; (None, None) if there is no object.
    """
    generator = np.random.default_rng(seed)
    draws = (np.bincount(generator.integers(0, images, images), minlength=images) for _ in range(resamples))
    values = [value for drawn in draws if (value := average_precision(categories, drawn)) is not None]
    low, high = np.percentile(values, [2.5, 97.5]).tolist() if values else (None, None)
    return low, high
