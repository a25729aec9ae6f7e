"""What a classifier is evaluated on, and that the order of an archive's members decides nothing."""

import random

import numpy as np
import pytest
from labelled_layouts import contents_of, fill, members, pack_tar, pack_zip
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES, IMAGENET_SIMPLE_CATEGORIES
from timm.data import ImageNetInfo
from torchvision.models._meta import _IMAGENET_CATEGORIES

from spark_bench.data.images.imagenet import imagenet_places
from spark_bench.data.images.labelled import open_evaluation, open_labelled
from spark_bench.errors import InputError

pytestmark = pytest.mark.usefixtures('cache')
WNIDS = [ImageNetInfo().index_to_label_name(place) for place in range(1000)]


def layouts(root, folder):
    """The same images as a folder, a zip and a tar, whose members stand in an order of their own."""
    names = members(root)
    random.Random(0).shuffle(names)
    return [
        root,
        pack_zip(folder / 'a.zip', root, names=names),
        pack_tar(folder / 'b.tar', {name: (root / name).read_bytes() for name in names}),
    ]


def test_the_order_of_members_decides_neither_what_is_held_out_nor_what_is_drawn(tmp_path):
    fill(tmp_path / 'root', 'abc', {'x': 11})
    found = []
    for layout in layouts(tmp_path / 'root/x', tmp_path):
        train, val = open_labelled(layout)
        found.append([train.labels.tolist(), contents_of(train), contents_of(val), list(train.source.names)])
    assert found[0] == found[1] == found[2] and len(found[0][2]) == 6


def test_what_is_held_out_needs_no_train_beside_it(tmp_path):
    root = fill(tmp_path / 'root', 'abc', {'train': 2, 'val': 3})
    whole = contents_of(open_labelled(root)[1])
    assert contents_of(open_evaluation(root)) == whole
    alone = tmp_path / 'alone'
    alone.mkdir()
    (root / 'val').rename(alone / 'val')
    shards = tmp_path / 'shards'
    pack_tar(shards / 'val-0.tar', {name[4:]: (alone / name).read_bytes() for name in members(alone)})
    for layout in (*layouts(alone, tmp_path), shards):
        assert contents_of(open_evaluation(layout)) == whole, layout
        with pytest.raises(InputError, match='train'):
            open_labelled(layout)
    for layout in layouts(alone / 'val', tmp_path):  # no split at all
        assert contents_of(open_evaluation(layout)) == whole
    (root / 'val').mkdir()
    (root / 'val/a').mkdir()
    (root / 'train/a/0.png').rename(root / 'val/a/0.png')
    (root / 'train/b').rename(root / 'val/b')
    assert open_evaluation(root).classes == ('a', 'b'), 'some of the classes of train'


def test_train_alone_is_refused_for_evaluation_too(tmp_path):
    root = fill(tmp_path / 'root', 'ab', {'train': 2})
    for layout in layouts(root, tmp_path):
        with pytest.raises(InputError, match='holds train but no val'):
            open_evaluation(layout)


def test_a_tar_a_class_is_imagenets_own_form(tmp_path):
    root = fill(tmp_path / 'root', WNIDS[:3], {'train': 3, 'val': 2})
    for split in ('train', 'val'):
        for wnid in WNIDS[:3]:
            inside = sorted((root / split / wnid).rglob('*.png'))
            files = {f'{wnid}_{number}.png': path.read_bytes() for number, path in enumerate(inside)}
            pack_tar(tmp_path / 'packed' / split / f'{wnid}.tar', files)
    folder, packed = open_labelled(root), open_labelled(tmp_path / 'packed')
    assert list(map(contents_of, packed)) == list(map(contents_of, folder))
    assert packed[0].classes == tuple(WNIDS[:3])
    assert contents_of(open_evaluation(tmp_path / 'packed/val')) == contents_of(folder[1])


def test_images_outside_of_folders_are_still_refused_in_other_shards(tmp_path):
    for number in range(2):
        fill(tmp_path / 'root', 'a', {'x': 2})
        pack_tar(tmp_path / f's/{number}.tar', {f'{number}.png': (tmp_path / 'root/x/a/0.png').read_bytes()})
    with pytest.raises(InputError, match='outside of class folders'):
        open_labelled(tmp_path / 's')


@pytest.mark.parametrize('words', [IMAGENET_CATEGORIES, IMAGENET_SIMPLE_CATEGORIES, _IMAGENET_CATEGORIES])
def test_every_way_to_name_imagenets_classes_is_known_and_nothing_else(words):
    every = tuple(range(1000))
    assert imagenet_places(WNIDS) == imagenet_places([str(place) for place in every]) == imagenet_places(words) == every
    assert imagenet_places(WNIDS[:7:-1]) == every[:7:-1]
    assert imagenet_places(sorted(map(str, every))) == tuple(map(int, sorted(map(str, every))))
    shuffled = list(words)
    random.Random(1).shuffle(shuffled)
    for other in (sorted(words), shuffled, words[:999], [f'n{20000000 + place}' for place in every], ['0', '1'], []):
        assert imagenet_places(other) is None


def test_timms_numbers_are_the_order_of_imagenets_folders():
    assert sorted(WNIDS) == WNIDS and np.unique(WNIDS).size == 1000
