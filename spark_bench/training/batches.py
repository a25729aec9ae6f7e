"""From a stated global batch to what each process reads in each step."""

import hashlib
import struct
from collections.abc import Sized

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import get_rank, get_world_size
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import DataLoader, Sampler

from spark_bench.errors import InputError


def divide_batch(
    global_batch: int,
    processes: int,
    batch_size: int | None = None,
    accumulate: int | None = None,
    limit: int | None = None,
) -> tuple[int, int]:
    """Split a global batch so that processes × accumulation × batch size is exactly that batch.

    Args:
        global_batch: images an update of the weights sees.
        processes: how many train together.
        batch_size: images a process computes at a time; None follows from the others.
        accumulate: how often gradients are summed before an update; None takes the fewest that fit.
        limit: the largest batch size to choose where neither is given; None for no limit.

    Returns:
        ``(batch_size, accumulate)``.

    Raises:
        InputError: with the values that would do.
    """
    if global_batch % processes:
        raise InputError(
            f'a global batch of {global_batch} does not divide among {processes} processes: start '
            f'{_choices(_divisors(global_batch))} of them, or change global_batch'
        )
    share = global_batch // processes
    if accumulate is None and batch_size is None:
        batch_size = max(size for size in _divisors(share) if limit is None or size <= limit)
    if accumulate is not None and share % accumulate:
        raise InputError(
            f'--accumulate {accumulate} does not divide the {share} images of each process in a global '
            f'batch of {global_batch}: choose {_choices(_divisors(share))}'
        )
    if batch_size is None:
        batch_size = share // accumulate
    if share % batch_size or accumulate not in (None, share // batch_size):
        sizes = _divisors(share) if accumulate is None else [share // accumulate]
        times = '' if accumulate is None else f' and --accumulate {accumulate}'
        raise InputError(
            f'--batch-size {batch_size} on {processes} processes{times} does not make the global batch of '
            f'{global_batch}: choose {_choices(sizes)}'
        )
    return batch_size, share // batch_size


def fit_batch(cfg: Config, batch_size: int | None = None, accumulate: int | None = None) -> None:
    """Settle the learning rate of a recipe for its global batch, and how that batch is divided.

    A recipe states ``global_batch``, the images that an update sees, and ``base_lr``, the learning rate for
    ``base_batch`` images (256 unless stated), which grows with the batch; or else the rate of its optimizer.

    Args:
        cfg: the config, changed in place.
        batch_size, accumulate: see :func:`divide_batch`; where the first is None, the config's may say it.

    Raises:
        InputError: with the values that would do.
    """
    for key in ('global_batch', 'base_batch', 'batch_limit'):
        if key in cfg and (not isinstance(cfg[key], int) or cfg[key] < 1):
            raise InputError(f'{key} is {cfg[key]!r}: give a whole number from 1 up')
    loader, optimizer = cfg.train_dataloader, cfg.optim_wrapper.optimizer
    stated = loader.get('batch_size')
    if stated is not None and (not isinstance(stated, int) or stated < 1):
        raise InputError(f'train_dataloader.batch_size is {stated!r}: give a whole number from 1 up')
    if optimizer.get('lr') is None:
        if not isinstance(cfg.get('base_lr'), (int, float)) or cfg.base_lr <= 0:
            raise InputError(
                f'base_lr is {cfg.get("base_lr")!r}, and the optimizer has no lr: give base_lr, a number '
                f'above 0, for {cfg.get("base_batch", 256)} images'
            )
        optimizer.lr = cfg.base_lr * cfg.global_batch / cfg.get('base_batch', 256)
    loader.batch_size, cfg.train_cfg.accumulate = divide_batch(
        cfg.global_batch, get_world_size(), batch_size or loader.get('batch_size'), accumulate, cfg.get('batch_limit')
    )
    cfg.optim_wrapper.accumulative_counts = cfg.train_cfg.accumulate
    loader.sampler.global_batch = cfg.global_batch


def _divisors(number):
    return [size for size in range(1, number + 1) if number % size == 0]


def _choices(numbers):
    if len(numbers) > 12:
        return f'{", ".join(map(str, numbers[:3]))}, …, {", ".join(map(str, numbers[-8:]))}'
    return ', '.join(map(str, numbers[:-1])) + (' or ' if len(numbers) > 1 else '') + str(numbers[-1])


@DATA_SAMPLERS.register_module()
class ImageSampler(Sampler):
    """Shuffles anew each epoch, deals each global batch out to the processes, and can start in mid-epoch.

    Whatever the number of processes, update k of an epoch sees the same images; each is asked for by ``(seed,
    index)``, so that its augmentation depends on no process. The images behind the last whole global batch are left
    out of that epoch.

    Args:
        dataset: anything with a length.
        seed: of the order and of the images' augmentation.
        global_batch: images an update.
    """

    def __init__(self, dataset: Sized, seed: int | None, global_batch: int) -> None:
        self.images, self.seed, self.global_batch = len(dataset), seed or 0, global_batch
        self.epoch = self.start = 0

    def __len__(self):
        return self.images // self.global_batch * self.global_batch // get_world_size()

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle."""
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        order = self._arrange(torch.randperm(self.images, generator=generator))
        order = order[: self.images // self.global_batch * self.global_batch]
        mine = slice(get_rank() + self.start * get_world_size(), None, get_world_size())
        for place, index in zip(range(len(order))[mine], order[mine].tolist(), strict=True):
            yield self._image_seed(place, index), index

    def _image_seed(self, place, index):
        return image_seed(self.seed, self.epoch, index)

    def _arrange(self, order):
        return order


@DATA_SAMPLERS.register_module()
class GroupedImageSampler(ImageSampler):
    """The images of an update are all wide or all tall, so that little of a batch is padding.

    A group's images behind its last whole global batch make one mixed batch, or several, with the other's.

    Args:
        dataset: as mmengine's; the ``width`` and ``height`` of each entry decide.
    """

    def __init__(self, dataset: BaseDataset, seed: int | None, global_batch: int) -> None:
        super().__init__(dataset, seed, global_batch)
        sizes = (dataset.get_data_info(index) for index in range(len(dataset)))
        self._wide = torch.tensor([entry['width'] > entry['height'] for entry in sizes])

    def _arrange(self, order):
        """Each group in its shuffled order; a batch stands where the image that completes it stood."""
        size, batches, rest = self.global_batch, [], []
        for group in (order[self._wide[order]], order[~self._wide[order]]):
            whole = len(group) // size * size
            batches += group[:whole].split(size) if whole else []
            rest.append(group[whole:])
        position = torch.empty_like(order)
        position[order] = torch.arange(len(order))
        batches.sort(key=lambda batch: int(position[batch[-1]]))
        return torch.cat([*batches, torch.cat(rest)])


@DATA_SAMPLERS.register_module()
class RepeatedImageSampler(ImageSampler):
    """Repeated augmentation: each image ``repeats`` times in a row, each time augmented anew.

    Dealt out to several processes, an image's repeats fall to different ones. An epoch is as long as without, so it
    sees a part of the images. Source: Hoffer et al., Augment your batch, CVPR 2020; the order is that of timm's
    ``RepeatAugSampler``.

    Args:
        repeats: how often an image comes.
    """

    def __init__(self, dataset: Sized, seed: int | None, global_batch: int, repeats: int = 3) -> None:
        super().__init__(dataset, seed, global_batch)
        if not isinstance(repeats, int) or repeats < 1:
            raise InputError(f'the repeats of RepeatedImageSampler are {repeats!r}: give a whole number from 1 up')
        self.repeats = repeats

    def _arrange(self, order):
        return order.repeat_interleave(self.repeats)[: len(order)]

    def _image_seed(self, place, index):
        repeat = place % self.repeats
        return image_seed(self.seed, self.epoch, index, *([repeat] if repeat else []))


def image_seed(*numbers: int) -> int:
    """The seed, below 2^63, of one image's augmentation.

    Args:
        numbers: seed, epoch and image; then which repeat, from the second on.
    """
    digest = hashlib.sha256(struct.pack(f'<{len(numbers)}Q', *numbers)).digest()
    return int.from_bytes(digest[:8], 'little') >> 1


class UpdateBatches:
    """A data loader in steps of one update: each item is the list of batches whose gradients are summed.

    Args:
        loader: :class:`torch.utils.data.DataLoader` with a :class:`ImageSampler`.
        accumulate: batches an update.
    """

    def __init__(self, loader: DataLoader, accumulate: int) -> None:
        self.loader, self.accumulate = loader, accumulate
        self.dataset, self.sampler, self.batch_size = loader.dataset, loader.sampler, loader.batch_size

    def __len__(self):
        return len(self.loader) // self.accumulate

    def start_at(self, update: int) -> None:
        """Begin the next epoch's iteration at ``update``, as a resumed run does."""
        self.sampler.start = update * self.accumulate * self.batch_size

    def __iter__(self):
        iterator = self._open()
        for _ in range(len(self) - self.sampler.start // (self.accumulate * self.batch_size)):
            yield [next(iterator) for _ in range(self.accumulate)]

    def _open(self):
        # A loader draws a number when it is opened, but only without persistent workers. One draw at the start of
        # each epoch, and none where it is taken up again, makes the stream the same in all cases.
        state = torch.get_rng_state()
        iterator = iter(self.loader)
        torch.set_rng_state(state)
        if self.sampler.start == 0:
            torch.empty((), dtype=torch.int64).random_()
        return iterator
