"""Labelled images in a layout that is broken, or an archive that is damaged: refused in one line, by name."""

import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from labelled_layouts import COUNTS, IMAGE, contents_of, fill, members, pack_tar, pack_zip, refused, save, sound_shards

from spark_bench.data.check import check
from spark_bench.data.images.decoding import read_from
from spark_bench.data.images.labelled import open_labelled
from spark_bench.errors import InputError

pytestmark = pytest.mark.usefixtures('cache')


@pytest.mark.parametrize(
    'damage, words',
    [
        (lambda root: root.rename(root.with_name('x')), ['root does not exist', '--data-root']),
        (lambda root: shutil.rmtree(root / 'val/b'), ['class b is in', 'train', 'not in', 'val']),
        (lambda root: shutil.rmtree(root / 'train/b'), ['class b is in', 'val']),
        (lambda root: [shutil.rmtree(root / split / 'b') for split in COUNTS], ['1 class (a)', 'two are needed']),
        (lambda root: [path.unlink() for path in (root / 'val/b').rglob('*.png')], ['val/b holds no image']),
        (lambda root: (root / 'val/c').mkdir(), ['val/c holds no image']),
        (lambda root: save(root / 'val/x.png', 0), ['val', 'outside of class folders', 'x.png']),
        (lambda root: [shutil.rmtree(root / split) for split in COUNTS], ['holds no image']),
        (lambda root: shutil.rmtree(root / 'val'), ['train but no val', 'root/train alone']),
        (lambda root: shutil.rmtree(root / 'train'), ['val but no train']),
        (lambda root: (root / 'val/b/y.png').symlink_to('nowhere'), ['val/b/y.png', 'leads nowhere']),
        (lambda root: (root / 'val/c').symlink_to('nowhere'), ['val/c', 'leads nowhere']),
        (lambda root: (root / 'val/b/up').symlink_to('up'), ['val/b', 'cannot be read']),
        (
            lambda root: [shutil.rmtree(root / split) or (root / f'{split}.tar.gz').write_text('') for split in COUNTS],
            ['train.tar.gz', 'compressed', 'plain .tar'],
        ),
    ],
)
def test_broken_folders_are_refused(tmp_path, damage, words):
    root = fill(tmp_path / 'root', 'ab')
    damage(root)
    refused(root, *words)


def test_what_is_refused_is_a_problem_of_the_check_and_what_is_not_is_none(tmp_path):
    def damage(root, number):
        changes = [
            lambda: None,
            lambda: shutil.rmtree(root / 'val/b'),
            lambda: (root / 'val/c').mkdir(),
            lambda: save(root / 'val/x.png', 0),
            lambda: shutil.rmtree(root / 'val'),
            lambda: (root / 'val').rename(root / 'test'),
            lambda: (root / 'val').rename(root / 'validation'),
            lambda: shutil.copytree(root / 'val', root / 'test/val'),
            lambda: (root / 'train/b/y.png').symlink_to('nowhere'),
            lambda: [shutil.rmtree(root / split / 'b') for split in COUNTS],
        ]
        if number == len(changes):
            return False
        changes[number]()
        return True

    number, refusals = 0, []
    while damage(fill(tmp_path / str(number), 'ab'), number):
        report = check(tmp_path / str(number), 'imagenet', workers=1)
        try:
            open_labelled(tmp_path / str(number))
        except InputError:
            refusals.append(number)
        assert bool(report.problems) == (number in refusals), (number, report.findings)
        number += 1
    assert refusals == [1, 2, 3, 4, 8, 9]


@pytest.mark.parametrize(
    'more, words',
    [
        ({'9.png': IMAGE}, ['train-0.tar:9.png', 'has no label', '.cls']),
        ({'9.png': IMAGE, '9.cls': b''}, ['9.png is no class']),
        ({'9.png': IMAGE, '9.seg.png': IMAGE, '9.cls': b'1'}, ['9.png and 9.seg.png are two images of one sample']),
        ({'9.png': IMAGE, '9.cls': b'-1'}, ['9.png is no class', '-1']),
        ({'9.png': IMAGE, '9.cls': b'\xff\xfe'}, ['9.png is no class']),
        ({'9.png': IMAGE, '9.cls': b'a\nb'}, ['9.png is no class']),
        ({'9.png': IMAGE, '9.cls': b'1' * 300}, ['9.png is no class']),
        ({'9.png': IMAGE, '9.cls': b'cat'}, ["'cat'", 'is a name', 'numbers']),
        ({'9.png': IMAGE, '9.cls': b'7'}, ['class 7 is in', 'train shards', 'val shards']),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, more, words):
    assert len(open_labelled(sound_shards(tmp_path / 'sound'))[0]) == 4
    refused(sound_shards(tmp_path / 'shards', **more), *words)


def test_samples_whose_numbers_begin_anew_in_each_shard_are_apart(tmp_path):
    root = sound_shards(tmp_path / 'shards')
    pack_tar(root / 'train-1.tar', {f'{key}.jpg': IMAGE for key in range(4)} | {f'{key}.cls': b'1' for key in range(4)})
    train, _ = open_labelled(root)
    assert len(train) == 8 and sorted(train.labels) == [0, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    'names, words',
    [
        (['train-0', 'other'], ['other.tar', 'of no split']),
        (['train-0'], ['train shards only', 'add val']),
        (['val-0'], ['val shards only', 'add train']),
        (['train-0', 'test-0'], None),
        (['train-0', 'validation-0', 'test-0'], None),
        (['0', '1'], None),
    ],
)
def test_names_of_shards_tell_the_splits(tmp_path, names, words):
    sound = sound_shards(tmp_path / 'sound')
    (tmp_path / 'x').mkdir()
    for name in names:
        shutil.copy(sound / 'train-0.tar', tmp_path / 'x' / f'{name}.tar')
    if words:
        refused(tmp_path / 'x', *words)
        return
    train, val = open_labelled(tmp_path / 'x')
    assert (len(train), len(val)) == ((6, 2) if names == ['0', '1'] else (4, 4))
    if len(names) == 3:
        assert 'validation-0' in val.source.name(0)


def test_wrong_archives_are_refused(tmp_path):
    for name, words in {
        'a.txt': ['neither a folder nor'],
        'a.tgz': ['compressed'],
        'a.zip': ['a.zip is not a whole'],
        'a.tar': ['a.tar'],
    }.items():
        (tmp_path / name).write_text('text')
        refused(tmp_path / name, *words)
    root = fill(tmp_path / 'root', 'ab')
    only_train = [name for name in members(root) if name.startswith('train/')]
    refused(pack_zip(tmp_path / 'b.zip', root, names=only_train), 'b.zip holds train but no val')
    refused(pack_zip(tmp_path / 'c.zip', root / 'train/a'), 'outside of class folders')
    with zipfile.ZipFile(tmp_path / 'd.zip', 'w') as archive:
        archive.writestr('__MACOSX/train/a/._0.png', b'')
    refused(tmp_path / 'd.zip', 'd.zip holds no image')
    pack_zip(tmp_path / 'e.zip', root)
    with zipfile.ZipFile(tmp_path / 'e.zip', 'a') as archive:
        archive.writestr('__MACOSX/train/a/._0.png', b'')
    assert len(open_labelled(tmp_path / 'e.zip')[0]) == 6


def test_names_with_line_breaks_and_zero_bytes_stay_on_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for split in COUNTS:
            for name in 'ab':
                archive.writestr(f'{split}/{name}/x\ny.png', b'no image')
        archive.writestr('train/c\nd/0.png', b'')
    assert 'class c\\nd is in' in refused(tmp_path / 'a.zip')
    train, _ = open_labelled(
        pack_tar(tmp_path / 'a.tar', {f'{split}/{name}/x\ny.png': b'no image' for split in COUNTS for name in 'ab'})
    )
    with pytest.raises(InputError, match=r'x\\ny.png is not a readable image') as caught:
        read_from(train.source, 0)
    assert '\n' not in str(caught.value)
    member = tarfile.TarInfo('a/0.png')
    member.pax_headers = {'path': 'a/\0.png'}
    with tarfile.open(tmp_path / 'b.tar', 'w') as tar:
        tar.addfile(member)
    refused(tmp_path / 'b.tar', 'b.tar is not an uncompressed tar', 'zero byte')


def test_a_class_of_one_image_cannot_be_divided(tmp_path):
    for name in ('a/0', 'a/1', 'b/0'):
        save(tmp_path / 'root' / f'{name}.png', 0)
    refused(tmp_path / 'root', 'class b has 1 image')


def survives(path, good):
    """A damaged archive is one line, or gives only what the sound one gave."""
    try:
        opened = open_labelled(path)
    except InputError as error:
        assert '\n' not in str(error)
        return False
    for split, whole in zip(opened, good, strict=True):
        for index in range(len(split)):
            try:
                grey = read_from(split.source, index).getpixel((0, 0))[0]
            except InputError as error:
                assert '\n' not in str(error)
            else:
                assert whole is None or (split.classes[split.labels[index]], grey) in whole
    return True


def test_archives_cut_at_any_place(tmp_path):
    root = fill(tmp_path / 'root', ('a', 'b'))
    zipped = pack_zip(tmp_path / 'a.zip', root)
    tarred = pack_tar(tmp_path / 'a.tar', {name: (root / name).read_bytes() for name in members(root)})
    labels = {
        f'{split}/{i}.{kind}': IMAGE if kind == 'png' else str(i).encode()
        for split in COUNTS
        for i in range(2)
        for kind in ('cls', 'png')
    }
    beside = pack_tar(tmp_path / 'b.tar', labels)
    rng = np.random.default_rng(0)
    for path in (zipped, tarred, beside):
        whole, good = path.read_bytes(), [contents_of(split) for split in open_labelled(path)]
        borders = {border + step for border in range(0, len(whole), 512) for step in (-1, 0, 1, 100, 257)}
        cuts = sorted({*borders, *rng.integers(0, len(whole), 50).tolist(), len(whole) - 1})
        opened = []
        for cut in (cut for cut in cuts if 0 <= cut < len(whole)):
            path.write_bytes(whole[:cut])
            if survives(path, good):
                opened.append(cut)
        # A tar ends in 20 blocks' worth of zeros, of which one is enough.
        assert not opened or path.suffix == '.tar' and whole[min(opened) :].strip(b'\0') == b''


def test_archives_with_bytes_changed(tmp_path):
    root = fill(tmp_path / 'root', ('a', 'b'))
    zipped = pack_zip(tmp_path / 'a.zip', root)
    tarred = pack_tar(tmp_path / 'a.tar', {name: (root / name).read_bytes() for name in members(root)})
    rng = np.random.default_rng(1)
    for path in (zipped, tarred):
        whole = path.read_bytes()
        for _ in range(300):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), rng.integers(1, 6)):
                damaged[place] = rng.integers(0, 256)
            path.write_bytes(damaged)
            survives(path, [None, None])
