"""What data is goes by its contents, whatever names, sizes and times say; each file is hashed once."""

import hashlib
import multiprocessing
import os
import zipfile
from pathlib import Path

import pytest
from labelled_layouts import IMAGE, fill, pack_tar, pack_zip

from spark_bench.data.images import identity
from spark_bench.data.images.identity import contents_digest, file_digests
from spark_bench.data.images.labelled import fingerprint, open_labelled
from spark_bench.data.images.numbered import NameTable
from spark_bench.data.images.sources import open_images
from spark_bench.errors import InputError

NAMES = ['a/0.png', 'a/1.png', 'é.png', os.fsdecode(b'\xff.png')]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SPARK_BENCH_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(identity, '_SETTLED_NS', -(10**18))  # so that files of this moment are kept too
    return tmp_path / 'cache'


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(NAMES):
        path = tmp_path / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'%d' % number * 100)
    return tmp_path / 'data'


@pytest.fixture
def opened(monkeypatch):
    """The paths of files that are hashed."""
    paths, hash_file = [], identity._digest_of
    monkeypatch.setattr(identity, '_digest_of', lambda path: paths.append(path) or hash_file(path))
    return paths


def swap(root, one, other):
    (root / one).rename(root / 'aside')
    (root / other).rename(root / one)
    (root / 'aside').rename(root / other)


def overwrite_keeping_times(path, contents):
    status = os.stat(path)
    path.write_bytes(contents)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    'other contents of equal size': lambda root: (root / NAMES[0]).write_bytes(b'9' * 100),
    'of equal size and time': lambda root: overwrite_keeping_times(root / NAMES[0], b'9' * 100),
    'two names swapped': lambda root: swap(root, NAMES[0], NAMES[1]),
    'replaced by another file': lambda root: (
        (root / 'new').write_bytes(b'7' * 100),
        (root / 'new').replace(root / NAMES[2]),
    ),
    'longer': lambda root: (root / NAMES[3]).write_bytes(b'3' * 101),
}


@pytest.mark.parametrize('change', CHANGES)
def test_every_change_of_contents_is_another_identity(root, change):
    before = contents_digest(root, NAMES)
    assert before == contents_digest(root, NAMES)
    CHANGES[change](root)
    assert contents_digest(root, NAMES) != before


def test_names_and_their_order_count_and_the_place_does_not(root):
    before = contents_digest(root, NAMES)
    assert contents_digest(root, NAMES[::-1]) != before
    assert contents_digest(str(root), NameTable(NAMES)) == before
    root.rename(root.with_name('elsewhere'))
    assert contents_digest(root.with_name('elsewhere'), NAMES) == before
    assert contents_digest(root, []) == hashlib.sha256().hexdigest()


def test_nothing_is_hashed_twice_and_copies_of_times_change_nothing(root, opened):
    contents_digest(root, NAMES[:2])
    contents_digest(root, NAMES)
    assert sorted(map(os.fsencode, opened)) == sorted(os.fsencode(root / name) for name in NAMES)
    opened.clear()
    before = contents_digest(root, NAMES[::-1]), contents_digest(root, NAMES)
    assert not opened
    os.utime(root / NAMES[0])
    assert contents_digest(root, NAMES) == before[1] and opened == [str(root / NAMES[0])]


def test_what_was_changed_a_moment_ago_is_looked_at_again(root, opened, monkeypatch):
    monkeypatch.setattr(identity, '_SETTLED_NS', 10**12)
    contents_digest(root, NAMES)
    contents_digest(root, NAMES)
    assert len(opened) == 2 * len(NAMES)


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(b'no zip' * 99),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes().replace(b'keys', b'kays')),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_cache_is_made_anew(root, cache, damage, opened):
    before = contents_digest(root, NAMES)
    [kept] = (cache / 'contents').glob('*.npz')
    damage(kept)
    assert contents_digest(root, NAMES) == before and len(opened) == 2 * len(NAMES)
    if kept.is_file():
        contents_digest(root, NAMES)
        assert len(opened) == 2 * len(NAMES)


def test_a_flipped_digest_in_the_cache_is_not_believed(root, cache):
    before = contents_digest(root, NAMES)
    [kept] = (cache / 'contents').glob('*.npz')
    with zipfile.ZipFile(kept) as archive:
        data = archive.getinfo('digests.npy')
    contents = bytearray(kept.read_bytes())
    contents[data.header_offset + data.compress_size] ^= 1
    kept.write_bytes(contents)
    assert contents_digest(root, NAMES) == before


def test_without_a_cache_folder_it_works(root, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    before = contents_digest(root, NAMES)
    monkeypatch.setenv('SPARK_BENCH_CACHE', str(tmp_path / 'file'))
    assert contents_digest(root, NAMES) == before


def test_more_files_than_fit_one_chunk_and_older_digests_than_are_kept(root, monkeypatch, opened):
    monkeypatch.setattr(identity, '_CHUNK', 3)
    monkeypatch.setattr(identity, '_STORED_EVERY_S', -1)
    expected = [identity._hash(b'%d' % number * 100) for number in range(4)]
    assert [own.tobytes() for own in file_digests(root, NAMES)] == expected
    monkeypatch.setattr(identity, '_KEPT', 4)
    (root / 'new.png').write_bytes(b'n')
    contents_digest(root, ['new.png'])
    opened.clear()
    assert [own.tobytes() for own in file_digests(root, NAMES)] == expected and len(opened) == 4


def test_a_missing_file_is_named_and_an_unreadable_one_is_left_to_its_reader(root, monkeypatch):
    with pytest.raises(InputError, match='b.png cannot be read: No such file'):
        contents_digest(root, [*NAMES, 'b.png'])
    whole = contents_digest(root, NAMES)
    (root / 'a/1.png').unlink()
    (root / 'a/1.png').mkdir()  # even the superuser cannot read it
    assert contents_digest(root, NAMES) != whole
    (root / 'a/1.png').rmdir()
    (root / 'a/1.png').write_bytes(b'1' * 100)
    assert contents_digest(root, NAMES) == whole


def test_several_processes_at_once_agree(root):
    with multiprocessing.get_context('fork').Pool(4) as pool:
        found = pool.starmap(contents_digest, [(root, NAMES)] * 8)
    assert len({*found, contents_digest(root, NAMES)}) == 1


def test_roots_that_are_no_more_leave_no_locks_behind(tmp_path, cache):
    for number in range(300):
        file_digests(tmp_path / str(number), [])
    assert len(list((cache / 'contents').iterdir())) <= 256


def test_sources_of_every_kind_tell_images_of_equal_size_apart(tmp_path):
    root = fill(tmp_path / 'data', ('a', 'b'))
    other = bytes(IMAGE[:-1]) + bytes([IMAGE[-1] ^ 1])

    def pack():
        return [
            tmp_path / 'data',
            pack_zip(tmp_path / 'data.zip', root),
            pack_tar(
                tmp_path / 'data.tar',
                {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*.png'))},
            ),
        ]

    def marks():
        return [(open_images(place).fingerprint(), fingerprint(*open_labelled(place))) for place in pack()]

    (root / 'train/a/0.png').write_bytes(IMAGE)
    before = marks()
    assert marks() == before
    (root / 'train/a/0.png').write_bytes(other)
    for (images, labelled), (changed, relabelled) in zip(before, marks(), strict=True):
        assert images != changed and labelled != relabelled


def test_shards_by_relative_paths_and_part_of_them(tmp_path, monkeypatch):
    for number in range(2):
        pack_tar(tmp_path / f'shards/{number}.tar', {f'{number}-{i}.png': IMAGE for i in range(3)})
    whole = open_images(tmp_path / 'shards')
    monkeypatch.chdir(tmp_path)
    assert open_images(Path('shards')).fingerprint() == whole.fingerprint()
    before, part = whole.fingerprint(), whole.only([0, 1]).fingerprint()
    pack_tar(tmp_path / 'shards/1.tar', {f'1-{i}.png': IMAGE[:-1] + b'x' for i in range(3)})
    changed = open_images(tmp_path / 'shards')
    assert changed.fingerprint() != before and changed.only([0, 1]).fingerprint() == part
