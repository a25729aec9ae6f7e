"""Every layout of labelled pictures gives the same pictures and classes; what is broken is refused by name."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from spark_bench.data import archives, labelled
from spark_bench.data.check import check
from spark_bench.data.decoding import read_from
from spark_bench.data.labelled import fingerprint, open_labelled
from spark_bench.errors import InputError

REAL_DATA = Path(os.environ.get('SPARK_BENCH_TEST_DATA', Path(__file__).parents[3] / 'shared' / 'data'))
CLASSES = ('b-lack', 'b', 'B', '10', '9', 'é ü')
COUNTS = {'train': 3, 'val': 2}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SPARK_BENCH_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def save(path, seed):
    """A picture of one grey, so that it is known by its first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8), (seed, seed, seed)).save(path)


def fill(root, classes=CLASSES, counts=COUNTS):
    """``split/class/…`` with a picture at the top of each class and the others below."""
    seed = 0
    for split, count in counts.items():
        for name in classes:
            for i in range(count):
                save(root / split / name / ('' if i == 0 else 'deeper') / f'{i}.png', seed)
                seed += 1
    return root


def members(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob('*.png'))


def pack_zip(path, root, wrapper='', names=None):
    with zipfile.ZipFile(path, 'w') as archive:
        for name in names or members(root):
            archive.write(root / name, wrapper + name)
    return path


def pack_tar(path, files):
    """A tar from a dict of names to contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as tar:
        for name, contents in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
    return path


def shards(root, target, name_of, files_of):
    """Two shards a split; ``name_of(split, number)`` names them, ``files_of(name)`` gives the files of a picture."""
    for split in COUNTS:
        names = [name for name in members(root) if name.startswith(f'{split}/')]
        for number, part in enumerate((names[::2], names[1::2])):
            files = {}
            for name in part:
                files.update(files_of(name))
            pack_tar(target / name_of(split, number), files)
    return target


def contents_of(split):
    """Set of (class, grey) of one split."""
    return {(split.classes[split.labels[i]], read_from(split.source, i).getpixel((0, 0))[0])
            for i in range(len(split))}


def expected(root):
    """The same from torchvision, train and val."""
    sets = [ImageFolder(root / split) for split in COUNTS]
    return [{(one.classes[label], picture.getpixel((0, 0))[0]) for picture, label in one} for one in sets]


def refused(root, *words):
    with pytest.raises(InputError) as caught:
        open_labelled(root)
    message = str(caught.value)
    assert '\n' not in message
    for word in words:
        assert word in message, message
    return message


def test_a_folder_gives_what_torchvisions_image_folder_gives(tmp_path):
    root = fill(tmp_path / 'root')
    for split, pictures in zip(COUNTS, open_labelled(root), strict=True):
        theirs = ImageFolder(root / split)
        assert pictures.classes == tuple(theirs.classes) and pictures.labels.dtype == np.int64
        names = [str(Path(pictures.source.name(i))) for i in range(len(pictures))]
        assert sorted(zip(names, pictures.labels.tolist(), strict=True)) == sorted(theirs.samples)


def test_every_layout_gives_the_same_pictures_and_classes(tmp_path):
    root = fill(tmp_path / 'root')

    def inside(name):
        return {name.partition('/')[2]: (root / name).read_bytes()}

    everything = {name: (root / name).read_bytes() for name in members(root)}
    layouts = [
        root, pack_zip(tmp_path / 'a.zip', root), pack_zip(tmp_path / 'b.ZIP', root, './wrapped/twice/'),
        shards(root, tmp_path / 'c', lambda split, i: f'imagenet-{split}-{i:04}.tar', inside),
        shards(root, tmp_path / 'd', lambda split, i: f'{split}/{i:04}.tar', inside),
        shards(root, tmp_path / 'e', lambda split, i: f'deep/{split}-{i:04}.tar',
               lambda name: {f'wrapped/{name}': everything[name]}),
        pack_tar(tmp_path / 'g/all.tar', everything), pack_tar(tmp_path / 'h/0.tar', everything).parent]
    for layout in layouts:
        opened = open_labelled(layout)
        assert [contents_of(split) for split in opened] == expected(root), layout
        assert opened[0].classes == opened[1].classes == tuple(sorted(CLASSES))


def test_names_beside_pictures_are_classes(tmp_path):
    root = fill(tmp_path / 'root', [name for name in CLASSES if not name.isdigit()])

    def beside(name):
        key = name.replace('/', '_').replace('.png', '')
        return {f'{key}.cls': name.split('/')[1].encode() + b'\n', f'{key}.PNG': (root / name).read_bytes(),
                f'{key}.json': b'{}'}
    opened = open_labelled(shards(root, tmp_path / 'shards', lambda split, i: f'{split}-{i:04}.tar', beside))
    assert [contents_of(split) for split in opened] == expected(root)


def test_numbers_beside_pictures_are_classes_by_value(tmp_path):
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


@pytest.mark.parametrize('folders, used', [
    (['train', 'val', 'test'], 'val'), (['train', 'test'], 'test'), (['train', 'validation', 'test'], 'validation'),
    (['Train', 'Test'], 'Test'), (['training', 'testing'], 'testing')])
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
        drawn.append([{split.source.name(i).rpartition('root/')[2] for i in range(len(split))}
                      for split in (train, val)])
        assert not drawn[-1][0] & drawn[-1][1]
    assert drawn[0] == drawn[3]
    assert len(said) == 4 and '7 of 30 pictures' in said[0] and 'no splits' in said[0]


@pytest.mark.parametrize('damage, words', [
    (lambda root: root.rename(root.with_name('x')), ['root does not exist', '--data-root']),
    (lambda root: shutil.rmtree(root / 'val/b'), ['class b is in', 'train', 'not in', 'val']),
    (lambda root: shutil.rmtree(root / 'train/b'), ['class b is in', 'val']),
    (lambda root: [shutil.rmtree(root / split / 'b') for split in COUNTS], ['1 class (a)', 'two are needed']),
    (lambda root: [path.unlink() for path in (root / 'val/b').rglob('*.png')], ['val/b holds no picture']),
    (lambda root: (root / 'val/c').mkdir(), ['val/c holds no picture']),
    (lambda root: save(root / 'val/x.png', 0), ['val', 'outside of class folders', 'x.png']),
    (lambda root: [shutil.rmtree(root / split) for split in COUNTS], ['holds no picture']),
    (lambda root: shutil.rmtree(root / 'val'), ['train but no val', 'root/train alone']),
    (lambda root: shutil.rmtree(root / 'train'), ['val but no train']),
    (lambda root: (root / 'val/b/y.png').symlink_to('nowhere'), ['val/b/y.png', 'leads nowhere']),
    (lambda root: (root / 'val/c').symlink_to('nowhere'), ['val/c', 'leads nowhere']),
    (lambda root: (root / 'val/b/up').symlink_to('up'), ['val/b', 'cannot be read']),
    (lambda root: [shutil.rmtree(root / split) or (root / f'{split}.tar.gz').write_text('') for split in COUNTS],
     ['train.tar.gz', 'compressed', 'plain .tar'])])
def test_broken_folders_are_refused(tmp_path, damage, words):
    root = fill(tmp_path / 'root', 'ab')
    damage(root)
    refused(root, *words)


def test_what_is_refused_is_a_problem_of_the_check_and_what_is_not_is_none(tmp_path):
    def damage(root, number):
        changes = [lambda: None, lambda: shutil.rmtree(root / 'val/b'), lambda: (root / 'val/c').mkdir(),
                   lambda: save(root / 'val/x.png', 0), lambda: shutil.rmtree(root / 'val'),
                   lambda: (root / 'val').rename(root / 'test'), lambda: (root / 'val').rename(root / 'validation'),
                   lambda: shutil.copytree(root / 'val', root / 'test/val'),
                   lambda: (root / 'train/b/y.png').symlink_to('nowhere'),
                   lambda: [shutil.rmtree(root / split / 'b') for split in COUNTS]]
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


PICTURE = io.BytesIO()
Image.new('RGB', (4, 4)).save(PICTURE, 'PNG')
PICTURE = PICTURE.getvalue()


def sound_shards(root, **changes):
    """Shards in webdataset's form, two classes; ``changes`` add to the training shard."""
    for split in ('train', 'val'):
        files = {}
        for key in range(4):
            files |= {f'{key}.png': PICTURE, f'{key}.cls': str(key % 2).encode()}
        pack_tar(root / f'{split}-0.tar', files | (changes if split == 'train' else {}))
    return root


@pytest.mark.parametrize('more, words', [
    ({'9.png': PICTURE}, ['train-0.tar:9.png', 'has no label', '.cls']),
    ({'9.png': PICTURE, '9.cls': b''}, ['9.png is no class']),
    ({'9.png': PICTURE, '9.cls': b'-1'}, ['9.png is no class', '-1']),
    ({'9.png': PICTURE, '9.cls': b'\xff\xfe'}, ['9.png is no class']),
    ({'9.png': PICTURE, '9.cls': b'a\nb'}, ['9.png is no class']),
    ({'9.png': PICTURE, '9.cls': b'1' * 300}, ['9.png is no class']),
    ({'9.png': PICTURE, '9.cls': b'cat'}, ["'cat'", 'is a name', 'numbers']),
    ({'9.png': PICTURE, '9.cls': b'7'}, ['class 7 is in', 'train shards', 'val shards'])])
def test_labels_that_are_no_classes_are_refused(tmp_path, more, words):
    assert len(open_labelled(sound_shards(tmp_path / 'sound'))[0]) == 4
    refused(sound_shards(tmp_path / 'shards', **more), *words)


@pytest.mark.parametrize('names, words', [
    (['train-0', 'other'], ['other.tar', 'of no split']), (['train-0'], ['train shards only', 'add val']),
    (['val-0'], ['val shards only', 'add train']), (['train-0', 'test-0'], None),
    (['train-0', 'validation-0', 'test-0'], None), (['0', '1'], None)])
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
    for name, words in {'a.txt': ['neither a folder nor'], 'a.tgz': ['compressed'], 'a.zip': ['a.zip is not a whole'],
                        'a.tar': ['a.tar']}.items():
        (tmp_path / name).write_text('text')
        refused(tmp_path / name, *words)
    root = fill(tmp_path / 'root', 'ab')
    only_train = [name for name in members(root) if name.startswith('train/')]
    refused(pack_zip(tmp_path / 'b.zip', root, names=only_train), 'b.zip holds train but no val')
    refused(pack_zip(tmp_path / 'c.zip', root / 'train/a'), 'outside of class folders')
    with zipfile.ZipFile(tmp_path / 'd.zip', 'w') as archive:
        archive.writestr('__MACOSX/train/a/._0.png', b'')
    refused(tmp_path / 'd.zip', 'd.zip holds no picture')
    pack_zip(tmp_path / 'e.zip', root)
    with zipfile.ZipFile(tmp_path / 'e.zip', 'a') as archive:
        archive.writestr('__MACOSX/train/a/._0.png', b'')
    assert len(open_labelled(tmp_path / 'e.zip')[0]) == 6


def test_names_with_line_breaks_and_zero_bytes_stay_on_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for split in COUNTS:
            for name in 'ab':
                archive.writestr(f'{split}/{name}/x\ny.png', b'no picture')
        archive.writestr('train/c\nd/0.png', b'')
    assert 'class c\\nd is in' in refused(tmp_path / 'a.zip')
    train, _ = open_labelled(pack_tar(tmp_path / 'a.tar', {f'{split}/{name}/x\ny.png': b'no picture'
                                                           for split in COUNTS for name in 'ab'}))
    with pytest.raises(InputError, match=r'x\\ny.png is not a readable picture') as caught:
        read_from(train.source, 0)
    assert '\n' not in str(caught.value)
    member = tarfile.TarInfo('a/0.png')
    member.pax_headers = {'path': 'a/\0.png'}
    with tarfile.open(tmp_path / 'b.tar', 'w') as tar:
        tar.addfile(member)
    refused(tmp_path / 'b.tar', 'b.tar is not an uncompressed tar', 'zero byte')


def test_a_class_of_one_picture_cannot_be_divided(tmp_path):
    for name in ('a/0', 'a/1', 'b/0'):
        save(tmp_path / 'root' / f'{name}.png', 0)
    refused(tmp_path / 'root', 'class b has 1 picture')


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


def test_the_fingerprint_covers_pictures_labels_and_splits_but_not_the_place(tmp_path):
    root = fill(tmp_path / 'root', 'ab')
    before = fingerprint(*open_labelled(root))
    assert before == fingerprint(*open_labelled(shutil.copytree(root, tmp_path / 'other'))) and len(before) == 64
    seen = {before}
    changes = [lambda: (root / 'train/a/0.png').rename(root / 'train/a/x.png'),
               lambda: (root / 'train/a/x.png').rename(root / 'train/b/x.png'),
               lambda: (root / 'train/b/x.png').rename(root / 'val/b/x.png'),
               lambda: [(root / split / 'a').rename(root / split / 'c') for split in COUNTS],
               lambda: (root / 'val/b/x.png').write_bytes((root / 'val/b/x.png').read_bytes() + b' ')]
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
    one, other = open_labelled(shard), open_labelled(swapped)
    assert one[0].source.fingerprint() == other[0].source.fingerprint() and fingerprint(*one) != fingerprint(*other)


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
    labels = {f'{split}/{i}.{kind}': PICTURE if kind == 'png' else str(i).encode()
              for split in COUNTS for i in range(2) for kind in ('cls', 'png')}
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
        assert not opened or path.suffix == '.tar' and whole[min(opened):].strip(b'\0') == b''


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
