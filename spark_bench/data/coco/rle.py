"""COCO's run-length masks, decoded here: pycocotools reads beyond its memory where they are malformed."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice, pairwise
from typing import NamedTuple

import numpy as np

_TOGETHER = 64  # masks that are decoded at a time; each may be large
# Numbers in text, see _decompress. Seven digits of five bits are more than a run length or a difference of two takes.
_WHOLE, _UNFINISHED, _MOST_DIGITS = re.compile('(?:[P-o]{0,6}[0-O])*'), re.compile('[P-o]{0,7}'), 7


class MaskError(ValueError):
    """A malformed run-length mask. The message continues "a segmentation ..."."""


class Runs(NamedTuple):
    """A sound run-length mask.

    Attributes:
        size: (height, width).
        lengths: of runs of background, object, background, …, column by column.
    """

    size: tuple[int, int]
    lengths: list[int]

    @property
    def extent(self) -> tuple[int, int, int, int] | None:
        """(left, top, right, bottom) of the object in whole pixels, or None where the mask is empty."""
        height, ends = self.size[0], list(accumulate(self.lengths))
        parts = [(start, end - 1) for start, end in zip(ends[::2], ends[1::2], strict=False) if end > start]
        if not parts:
            return None
        left, right = parts[0][0] // height, parts[-1][1] // height + 1
        if any(first // height != last // height for first, last in parts):
            return left, 0, right, height
        return left, min(first % height for first, _ in parts), right, max(last % height for _, last in parts) + 1


def read_masks(segmentations: Iterable) -> Iterator[Runs | MaskError | list]:
    """Decode run-length masks, many at a time, which takes a fraction of the time.

    Args:
        segmentations: of annotations. Run-length masks are dicts with ``size`` (height, width) and ``counts``: a list
            of run lengths, or COCO's compressed text.

    Yields:
        for each the :class:`Runs`, or a MaskError where anything is malformed, or the runs do not fill the size. What
        is no dict, such as polygons, is yielded as it is.
    """
    segmentations = iter(segmentations)
    while together := list(islice(segmentations, _TOGETHER)):
        texts = {
            index: mask['counts']
            for index, mask in enumerate(together)
            if type(mask) is dict and type(mask.get('counts')) is str
        }
        decoded = dict(zip(texts, _decode([*texts.values()]), strict=True))
        for index, mask in enumerate(together):
            yield _judge(mask.get('size'), decoded.get(index, mask.get('counts'))) if type(mask) is dict else mask


def first_damaged_mask(counts: Sequence[str | bytes], sizes: Sequence[Sequence[int]]) -> int | None:
    """Find a mask that pycocotools' ``rleFrString`` must not be given.

    Args:
        counts: of each mask, its compressed run lengths, ASCII.
        sizes: of each mask, (height, width).

    Returns:
        index of the first mask whose runs are not all positive (the first may be 0) or do not fill its size; None if
        there is none.
    """
    runs_N, mask_N, _ = _decompress([text.decode() if isinstance(text, bytes) else text for text in counts])
    damaged = np.bincount(mask_N, runs_N, len(counts)) != np.prod(np.array(sizes, np.int64), axis=1)
    damaged[mask_N[(runs_N == 0) & (np.diff(mask_N, prepend=-1) == 0)]] = True
    return int(np.argmax(damaged)) if damaged.any() else None


def _judge(size, counts):
    if type(size) is not list or len(size) != 2 or not all(type(side) is int and 0 < side < 10**6 for side in size):
        return MaskError('whose size is not [height, width]')
    if isinstance(counts, MaskError):
        return counts
    if type(counts) is not list or not _are_lengths(counts):
        return MaskError('whose counts are neither a list of run lengths nor text')
    if sum(counts) != size[0] * size[1]:
        return MaskError(f'whose counts fill {sum(counts)} pixels, not {size[1]}x{size[0]}')
    return Runs(tuple(size), counts)


def _are_lengths(counts):
    # Sums of floats are floats, and other types do not add up at all.
    try:
        return type(sum(counts)) is int and min(counts, default=0) >= 0
    except (TypeError, OverflowError):
        return False


def _decode(texts):
    """The run lengths of each text, a list; or a MaskError."""
    runs_N, mask_N, faults = _decompress(texts)
    runs, ends = runs_N.tolist(), np.cumsum(np.bincount(mask_N, minlength=len(texts))).tolist()
    return [faults.get(index) or runs[start:end] for index, (start, end) in enumerate(pairwise([0, *ends]))]


def _decompress(texts):
    """COCO's text: six bits a character from '0' on, five of the number, least first, and one that says "more follows".

    Numbers are in two's complement; from the fourth on (of the third run of either kind) they are the difference from
    the one two places before.

    Returns:
        ``(runs_N, mask_N, faults)``: the run lengths of all texts, the text that each is of, ascending, and from the
        index of a text that is malformed, of which there are no runs, to a MaskError.
    """
    sound = [text if _WHOLE.fullmatch(text) else '' for text in texts]
    faults = {index: _explain(text) for index, text in enumerate(texts) if text != sound[index]}
    code = np.frombuffer(''.join(sound).encode(), np.uint8).astype(np.int64) - 48
    mask_of_code = np.repeat(np.arange(len(texts)), np.array([len(text) for text in sound], np.int64))
    ends = np.flatnonzero(code < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    digit = np.arange(len(code)) - np.repeat(starts, ends - starts + 1)
    mask_N = mask_of_code[starts]
    runs_N = np.add.reduceat((code & 31) << 5 * digit, starts) if len(starts) else np.zeros(0, np.int64)
    runs_N -= np.where(code[ends] & 16, 32 << 5 * digit[ends], 0)
    place = np.arange(len(mask_N)) - np.searchsorted(mask_N, np.arange(len(texts)))[mask_N]
    for later in (np.flatnonzero(place % 2 == 1), np.flatnonzero((place % 2 == 0) & (place > 0))):
        runs_N[later] = _sums_within(runs_N[later], mask_N[later])
    negative = np.unique(mask_N[runs_N < 0])
    kept = ~np.isin(mask_N, negative) if len(negative) else slice(None)
    faults |= dict.fromkeys(negative.tolist(), MaskError('whose counts hold a negative run'))
    return runs_N[kept], mask_N[kept], faults


def _sums_within(values, group):
    """Cumulative sums that start anew with each group; ``group`` is ascending."""
    sums, firsts = np.cumsum(values), np.flatnonzero(np.diff(group, prepend=-1))
    return sums - np.repeat((sums - values)[firsts], np.diff(firsts, append=len(group)))


def _explain(text):
    """What is wrong first with a malformed text."""
    end = _WHOLE.match(text).end()
    _, _, faults = _decompress([text[:end]])
    unfinished = _UNFINISHED.match(text, end).end()
    what = (
        'hold a number too large'
        if unfinished - end == _MOST_DIGITS
        else 'are cut short'
        if unfinished == len(text)
        else f'hold the character {ascii(text[unfinished])}'
    )
    return faults.get(0) or MaskError(f'whose counts {what}')
