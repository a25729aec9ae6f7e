"""The loader alone: images a second by number of processes."""

import itertools
import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from spark_bench.data.pretraining import Images


class Batches:
    """Endless batches of real images, augmented as SparK's recipe does.

    Args:
        root: see :func:`spark_bench.data.images.sources.open_images`.
        input_size: side of the images in pixels.

    Raises:
        InputError: for a folder without images.
    """

    def __init__(self, root: str, input_size: int, batch_size: int) -> None:
        self.images, self.batch_size = Images(root, input_size), batch_size

    def load(self, workers: int) -> Iterator[torch.Tensor]:
        """uint8 ``(B, 3, P, P)``, by so many processes; by this one where 0."""
        loader = DataLoader(self.images, batch_sampler=self, num_workers=workers, pin_memory=torch.cuda.is_available())
        return (batch['inputs'] for batch in loader)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """``(seed, index)`` of the images of each batch: through the data set, again and again."""
        numbers = itertools.count()
        while True:
            yield [(number, number % len(self.images)) for number in itertools.islice(numbers, self.batch_size)]

    def rate(self, workers: int) -> float:
        """Images a second once all processes are at work, none of which was ready beforehand."""
        batches = self.load(workers)
        # Two a process are made ahead.
        for _ in range(2 * workers + 1):
            next(batches)
        taken = 4 * max(workers, 2)
        start = time.perf_counter()
        for _ in range(taken):
            next(batches)
        return taken * self.batch_size / (time.perf_counter() - start)


def worker_counts(most: int) -> list[int]:
    """0, powers of two, and ``most``."""
    return [0, *(2**power for power in range(most.bit_length()) if 2**power < most), *([most] if most else [])]
