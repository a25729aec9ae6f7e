"""Every layout of labelled images gives the same images and classes."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from labelled_layouts import CLASSES, COUNTS, contents_of, fill, members, pack_tar, pack_zip, save, sound_shards
from torchvision.datasets import ImageFolder

from spark_bench import commands
from spark_bench.data.images import archives, labelled
from spark_bench.data.images.decoding import read_from
from spark_bench.data.images.labelled import fingerprint, open_labelled
from spark_bench.errors import InputError

REAL_DATA = Path(os.environ.get('SPARK_BENCH_TEST_DATA', Path(__file__).parents[3] / 'shared' / 'data'))
pytestmark = pytest.mark.usefixtures('cache')


def shards(root, target, name_of, files_of):
    """Two shards a split; ``name_of(split, number)`` names them, ``files_of(name)`` gives the files of an image."""
    for split in COUNTS:
        names = [name for name in members(root) if name.startswith(f'{split}/')]
        for number, part in enumerate((names[::2], names[1::2])):
            files = {}
            for name in part:
                files.update(files_of(name))
            pack_tar(target / name_of(split, number), files)
    return target


def expected(root):
    """The same from torchvision, train and val."""
    sets = [ImageFolder(root / split) for split in COUNTS]
    return [{(one.classes[label], image.getpixel((0, 0))[0]) for image, label in one} for one in sets]


def test_a_folder_gives_what_torchvisions_image_folder_gives(tmp_path):
    root = fill(tmp_path / 'root')
    for split, images in zip(COUNTS, open_labelled(root), strict=True):
        theirs = ImageFolder(root / split)
        assert images.classes == tuple(theirs.classes) and images.labels.dtype == np.int64
        names = [str(Path(images.source.name(i))) for i in range(len(images))]
        assert sorted(zip(names, images.labels.tolist(), strict=True)) == sorted(theirs.samples)


def test_every_layout_gives_the_same_images_and_classes(tmp_path):
    root = fill(tmp_path / 'root')

    def inside(name):
        return {name.partition('/')[2]: (root / name).read_bytes()}

    everything = {name: (root / name).read_bytes() for name in members(root)}
    layouts = [
        root,
        pack_zip(tmp_path / 'a.zip', root),
        pack_zip(tmp_path / 'b.ZIP', root, './wrapped/twice/'),
        shards(root, tmp_path / 'c', lambda split, i: f'imagenet-{split}-{i:04}.tar', inside),
        shards(root, tmp_path / 'd', lambda split, i: f'{split}/{i:04}.tar', inside),
        shards(
            root,
            tmp_path / 'e',
            lambda split, i: f'deep/{split}-{i:04}.tar',
            lambda name: {f'wrapped/{name}': everything[name]},
        ),
        pack_tar(tmp_path / 'g/all.tar', everything),
        pack_tar(tmp_path / 'h/0.tar', everything).parent,
    ]
    for layout in layouts:
        opened = open_labelled(layout)
        assert [contents_of(split) for split in opened] == expected(root), layout
        assert opened[0].classes == opened[1].classes == tuple(sorted(CLASSES))


def test_names_beside_images_are_classes(tmp_path):
    root = fill(tmp_path / 'root', [name for name in CLASSES if not name.isdigit()])

    def beside(name):
        key = name.replace('/', '_').replace('.png', '')
        return {
            f'{key}.cls': name.split('/')[1].encode() + b'\n',
            f'{key}.PNG': (root / name).read_bytes(),
            f'{key}.json': b'{}',
        }

    opened = open_labelled(shards(root, tmp_path / 'shards', lambda split, i: f'{split}-{i:04}.tar', beside))
    assert [contents_of(split) for split in opened] == expected(root)


def test_numbers_beside_images_are_classes_by_value(tmp_path):
    grey = {number: len(str(number)) + number for number in range(12)}

    def shard(path, numbers):
        files = {}
        for number in numbers:
            save(tmp_path / 'p.png', grey[number])
            files |= {f'k/{number}.png': (tmp_path / 'p.png').read_bytes(), f'k/{number}.cls': f'{number:03}'.encode()}
        return pack_tar(path, files)

    shard(tmp_path / 'x/train-0.tar', [11, 3, 7, 0, 1, 2])
    shard(tmp_path / 'x/train-1.tar', [4, 5, 6, 8, 9, 10])
    shard(tmp_path / 'x/val.tar', range(12))
    for split in open_labelled(tmp_path / 'x'):
        assert split.classes == tuple(str(number) for number in range(12))
        for index, label in enumerate(split.labels):
            assert read_from(split.source, index).getpixel((0, 0))[0] == grey[label]


@pytest.mark.parametrize(
    'folders, used',
    [
        (['train', 'val', 'test'], 'val'),
        (['train', 'test'], 'test'),
        (['train', 'validation', 'test'], 'validation'),
        (['Train', 'Test'], 'Test'),
        (['training', 'testing'], 'testing'),
    ],
)
def test_where_there_is_no_val_another_split_is_evaluated_on(tmp_path, folders, used):
    fill(tmp_path / 'root', 'ab', {folder: 2 for folder in folders})
    for root in (tmp_path / 'root', pack_zip(tmp_path / 'a.zip', tmp_path / 'root')):
        train, val = open_labelled(root)
        assert len(train) == len(val) == 4
        assert all(f'{used}/' in val.source.name(i) and f'{folders[0]}/' in train.source.name(i) for i in range(4))


def test_cifar_10(tmp_path):
    path = REAL_DATA / 'cifar10_jpg.zip'
    if not path.is_file():
        pytest.skip('development data is absent')
    train, val = open_labelled(path)
    assert np.bincount(train.labels).tolist() == [5000] * 10 and np.bincount(val.labels).tolist() == [1000] * 10
    assert train.classes[3] == 'cat' and read_from(val.source, 0).size == (32, 32)
    assert ':test/' in val.source.name(0) and ':train/' in train.source.name(0)


def test_without_splits_a_fifth_of_each_class_is_held_out_for_good(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(labelled, 'print_log', lambda text, logger: said.append(text))
    for name, count in {'a': 2, 'train': 7, 'c': 8, 'd': 13}.items():
        for i in range(count):
            save(tmp_path / 'root' / name / f'{i:02}.png', 20 * len(name) + i)
    root = tmp_path / 'root'
    zipped = pack_zip(tmp_path / 'a.zip', root, 'wrapped/', sorted(members(root), reverse=True))
    tarred = pack_tar(tmp_path / 'a.tar', {name: (root / name).read_bytes() for name in members(root)})
    drawn = []
    for layout in (root, zipped, tarred, root):
        train, val = open_labelled(layout)
        assert np.bincount(val.labels).tolist() == [1, 2, 3, 1] and len(train) == 30 - 7
        drawn.append(
            [{split.source.name(i).rpartition('root/')[2] for i in range(len(split))} for split in (train, val)]
        )
        assert not drawn[-1][0] & drawn[-1][1]
    assert drawn[0] == drawn[3]
    assert len(said) == 4 and '7 of 30 images' in said[0] and 'no splits' in said[0]


def test_the_index_of_an_older_version_has_its_labels_added(tmp_path, cache, monkeypatch):
    root = sound_shards(tmp_path / 'shards')
    before = open_labelled(root)
    for path in (cache / 'tar-index').iterdir():
        with np.load(path) as stored:
            old = {name: stored[name] for name in ('names', 'starts', 'sizes')}
        np.savez(path, **old)
    monkeypatch.setattr(archives, 'build_index', None)
    assert len(archives.TarShards([root / 'train-0.tar'])) == 4, 'the old index is still of use'
    monkeypatch.undo()
    monkeypatch.setenv('SPARK_BENCH_CACHE', str(cache))
    after = open_labelled(root)
    assert [split.labels.tolist() for split in before] == [split.labels.tolist() for split in after]
    monkeypatch.setattr(archives, 'build_index', None)
    assert fingerprint(*open_labelled(root)) == fingerprint(*before), 'now from the cache alone'


def test_the_fingerprint_covers_images_labels_and_splits_but_not_the_place(tmp_path):
    root = fill(tmp_path / 'root', 'ab')
    before = fingerprint(*open_labelled(root))
    assert before == fingerprint(*open_labelled(shutil.copytree(root, tmp_path / 'other'))) and len(before) == 64
    seen = {before}
    changes = [
        lambda: (root / 'train/a/0.png').rename(root / 'train/a/x.png'),
        lambda: (root / 'train/a/x.png').rename(root / 'train/b/x.png'),
        lambda: (root / 'train/b/x.png').rename(root / 'val/b/x.png'),
        lambda: [(root / split / 'a').rename(root / split / 'c') for split in COUNTS],
        lambda: (root / 'val/b/x.png').write_bytes((root / 'val/b/x.png').read_bytes() + b' '),
    ]
    for change in changes:
        change()
        seen.add(fingerprint(*open_labelled(root)))
    assert len(seen) == 1 + len(changes)
    for value in (1, 2):  # one shade of grey takes as many bytes as another
        save(root / 'train/b/0.png', value)
        packed = fingerprint(*open_labelled(pack_zip(tmp_path / 'a.zip', root)))
        assert packed == fingerprint(*open_labelled(tmp_path / 'a.zip'))
        seen.add(packed)
    assert len(seen) == 3 + len(changes)
    shard = sound_shards(tmp_path / 'shards')
    swapped = sound_shards(tmp_path / 'swapped', **{'0.cls': b'1', '1.cls': b'0'})
    assert fingerprint(*open_labelled(shard)) != fingerprint(*open_labelled(swapped))


def test_a_folder_that_links_put_into_two_classes_is_refused_and_checked_alike(tmp_path, capsys):
    root = fill(tmp_path / 'root')
    more = tmp_path / 'more'
    save(more / 'x.png', 1)
    for name in CLASSES[:2]:
        (root / 'train' / name / 'more').symlink_to(more)
    first, second = sorted(CLASSES[:2])
    with pytest.raises(
        InputError, match=rf'{first}/more and .*{second}/more are one folder|{second}/more and .*{first}'
    ):
        open_labelled(root)
    assert commands.main(['data', 'check', str(root)]) == 1
    assert 'folders that a link puts into two classes' in capsys.readouterr().out
