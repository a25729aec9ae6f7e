"""Images with the same contents, within a split and between train and val."""

from collections.abc import Iterator, Sequence

import numpy as np

from spark_bench.data.check.images import DIGEST_SIZE
from spark_bench.data.check.report import Report

# Below this fraction of val, what it shares with train does not show in what is measured. ImageNet as distributed
# would not pass otherwise.
FEW = 0.001


class Digests:
    """The digests of the images of all splits, in arrays.

    Args:
        parts: (split, names): ``train`` or ``val``, and the paths of its images relative to the root.
    """

    def __init__(self, parts: list[tuple[str, Sequence[str]]]):
        self._parts = parts
        self._starts = np.cumsum([0, *(len(names) for _, names in parts)])
        self._table = np.zeros((self._starts[-1], DIGEST_SIZE), np.uint8)
        self._known = np.zeros(self._starts[-1], bool)

    def put(self, part: int, index: int, digest: bytes) -> None:
        """Keep the digest of image ``index`` of a part; an empty one says that there is none."""
        if digest:
            self._table[self._starts[part] + index] = np.frombuffer(digest, np.uint8)
            self._known[self._starts[part] + index] = True

    def groups(self) -> Iterator[list[tuple[str, str]]]:
        """Yields lists of (split, name): images with the same contents."""
        known = np.flatnonzero(self._known)
        keys = np.ascontiguousarray(self._table[known]).view(np.uint64)
        order = np.lexsort((known, keys[:, 1], keys[:, 0]))
        same = np.zeros(len(order) + 1, bool)
        if len(order):
            same[1:-1] = (keys[order][1:] == keys[order][:-1]).all(1)
        for start in np.flatnonzero(~same[:-1] & same[1:]):
            end = start + 1
            while same[end]:
                end += 1
            yield [self._place(row) for row in known[order[start:end]]]

    def _place(self, row):
        part = int(np.searchsorted(self._starts, row, side='right')) - 1
        split, names = self._parts[part]
        return split, names[int(row - self._starts[part])]

    def count(self, split: str) -> int:
        """Number of images of a split."""
        return sum(len(names) for name, names in self._parts if name == split)


def report_duplicates(report: Report, digests: Digests) -> None:
    """Add to ``report`` which images repeat another one."""
    leaks = []
    for group in digests.groups():
        first: dict[str, str] = {}
        for split, name in group:
            if split in first:
                report.add('same image', name, f'the same as {first[split]}')
            first.setdefault(split, name)
        if len(first) > 1:
            leaks += [(name, f'the same as {first["train"]}') for split, name in group if split == 'val']
    kind = 'leak' if len(leaks) > FEW * digests.count('val') else 'few leaks'
    for name, detail in leaks:
        report.add(kind, name, detail)
