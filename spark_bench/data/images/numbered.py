"""Many images by number: their names in arrays, and what every source of them can do."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import BinaryIO, TypeVar

import numpy as np

AnySource = TypeVar('AnySource', bound='Source')


class NameTable(Sequence[str]):
    """Many names in two arrays.

    A list of a million strings would be copied page by page into every worker process, because reading a Python
    object writes its reference count.
    """

    def __init__(self, names: Iterable[str]):
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b''.join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self):
        return len(self._ends)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]].tobytes())


class Source(ABC):
    """Images that are numbered from 0, with random access.

    Args:
        names: of the images, below the root or inside the archives, in order.
    """

    def __init__(self, names: Iterable[str]):
        self.names = NameTable(names)

    def __len__(self):
        return len(self.names)

    def only(self: AnySource, indices: Sequence[int] | np.ndarray) -> AnySource:
        """Some of them, in the order of ``indices``."""
        chosen = copy.copy(self)
        chosen.names = NameTable(self.names[index] for index in indices)
        return chosen

    @abstractmethod
    def name(self, index: int) -> str:
        """What messages call an image."""

    @abstractmethod
    def open(self, index: int) -> str | BinaryIO:
        """What :func:`~spark_bench.data.images.decoding.read_image` takes."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over names and contents, hex."""
