"""How a global batch is divided, and what each process reads."""

import itertools

import pytest
import torch
from mmengine.config import Config

from spark_bench.errors import InputError
from spark_bench.training import batches
from spark_bench.training.batches import GroupedImageSampler, ImageSampler, UpdateBatches, divide_batch


@pytest.mark.parametrize(
    'given, expected',
    [
        ((4096, 8), (512, 1)),
        ((4096, 8, None, None, 128), (128, 4)),
        ((4096, 32, None, None, 128), (128, 1)),
        ((4096, 1, 64), (64, 64)),
        ((4096, 8, None, 2), (256, 2)),
        ((4096, 8, 128, 4), (128, 4)),
        ((2048, 8, None, None, 24), (16, 16)),
        ((16, 1), (16, 1)),
    ],
)
def test_the_parts_multiply_to_the_global_batch(given, expected):
    assert divide_batch(*given) == expected
    assert expected[0] * expected[1] * given[1] == given[0]


@pytest.mark.parametrize(
    'given, message',
    [
        ((4096, 3), '3 processes: start 1, 2, 4'),
        ((4096, 8, 100), '--batch-size 100 on 8 processes .* choose 1, 2, 4, 8'),
        ((4096, 8, None, 3), '--accumulate 3 .* choose 1, 2'),
        ((4096, 8, 64, 4), '--batch-size 64 .* choose 128'),
        ((16, 1, 32), 'choose 1, 2, 4, 8 or 16'),
    ],
)
def test_what_does_not_divide_is_refused_with_what_would(given, message):
    with pytest.raises(InputError, match=message) as caught:
        divide_batch(*given)
    assert '\n' not in str(caught.value)


class Indices:
    """103 images, each its own number, asked for by ``(seed, number)``."""

    def __len__(self):
        return 103

    def __getitem__(self, key):
        return key[1]


def recipe(lr=None, **top):
    return Config(
        dict(train_dataloader=dict(sampler=dict()), train_cfg=dict(), optim_wrapper=dict(optimizer=dict(lr=lr)), **top)
    )


@pytest.mark.parametrize(
    'stated, lr',
    [
        (dict(global_batch=64, base_lr=0.2), 0.05),
        (dict(global_batch=8, base_batch=16, base_lr=0.02), 0.01),
        (dict(global_batch=8, base_lr=0.02, lr=0.5), 0.5),
        (dict(global_batch=8, lr=0.5), 0.5),
    ],
)
def test_the_learning_rate_grows_with_the_batch_unless_the_optimizer_states_its_own(stated, lr):
    cfg = recipe(**stated)
    batches.fit_batch(cfg)
    assert cfg.optim_wrapper.optimizer.lr == lr and cfg.train_dataloader.sampler.global_batch == cfg.global_batch
    assert cfg.train_dataloader.batch_size * cfg.train_cfg.accumulate == cfg.global_batch


@pytest.mark.parametrize('stated', [{}, {'base_lr': None}, {'base_lr': 'fast'}, {'base_lr': 0}])
def test_a_recipe_without_a_learning_rate_is_refused(stated):
    with pytest.raises(InputError, match='give base_lr, a number above 0, for 256 images'):
        batches.fit_batch(recipe(global_batch=8, **stated))


def sampler_of(monkeypatch, rank, processes):
    monkeypatch.setattr(batches, 'get_rank', lambda: rank)
    monkeypatch.setattr(batches, 'get_world_size', lambda: processes)
    return ImageSampler(range(103), seed=5, global_batch=8)


def test_every_update_sees_the_same_images_whatever_the_number_of_processes(monkeypatch):
    def read(processes):
        drawn = []
        for rank in range(processes):
            sampler = sampler_of(monkeypatch, rank, processes)
            sampler.set_epoch(3)
            assert len(sampler) == 96 // processes
            keys = list(sampler)
            share = 8 // processes
            drawn.append([keys[i : i + share] for i in range(0, len(keys), share)])
        return [sorted(itertools.chain(*update)) for update in zip(*drawn, strict=True)]

    assert read(1) == read(2) == read(4)
    seen = [index for update in read(1) for _, index in update]
    assert len(set(seen)) == 96


def test_epochs_shuffle_anew_and_augment_anew(monkeypatch):
    sampler = sampler_of(monkeypatch, 0, 1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert [index for _, index in first] != [index for _, index in second]
    assert not {seed for seed, _ in first} & {seed for seed, _ in second}
    assert first == list(sampler_of(monkeypatch, 0, 1))


@pytest.mark.parametrize('workers', [0, 2])
def test_an_epoch_taken_up_in_the_middle_goes_on_with_the_same_images(monkeypatch, workers):
    def loader():
        sampler = sampler_of(monkeypatch, 0, 1)
        return UpdateBatches(
            torch.utils.data.DataLoader(Indices(), batch_size=4, sampler=sampler, drop_last=True, num_workers=workers),
            2,
        )

    whole, rest = loader(), loader()
    torch.manual_seed(0)
    expected = [torch.stack(update).tolist() for update in whole]
    drawn = torch.get_rng_state()
    torch.manual_seed(0)
    torch.empty((), dtype=torch.int64).random_()
    rest.start_at(5)
    assert [torch.stack(update).tolist() for update in rest] == expected[5:]
    assert len(expected) == len(whole) == len(rest) == 12
    assert torch.equal(torch.get_rng_state(), drawn), 'the generator stands where it would have stood'


class Sizes:
    """Images of which every third is tall."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def get_data_info(self, index):
        return {'width': 4, 'height': 6} if index % 3 == 0 else {'width': 6, 'height': 4}


@pytest.mark.parametrize('count, batch', [(48, 4), (50, 4), (7, 8), (31, 16), (12, 1)])
def test_an_update_sees_images_of_one_orientation(count, batch):
    sampler = GroupedImageSampler(Sizes(count), seed=1, global_batch=batch)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        order = [index for _, index in sampler]
        assert len(order) == len(set(order)) == len(sampler) == count // batch * batch
        mixed = [
            len({index % 3 == 0 for index in order[start : start + batch]}) > 1 for start in range(0, len(order), batch)
        ]
        # What is left of both groups shares the last batches.
        assert sum(mixed) <= 2 and not any(mixed[:-2])
        orders.append(order)
    assert batch > count or orders[0] != orders[1]


def test_orientations_do_not_come_one_after_the_other():
    sampler = GroupedImageSampler(Sizes(300), seed=0, global_batch=4)
    order = [index for _, index in sampler]
    tall = [order[start] % 3 == 0 for start in range(0, len(order), 4)]
    assert any(tall[:20]) and any(tall[-20:]) and not all(tall[:20])
