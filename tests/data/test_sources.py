"""Every way to hand over images gives the same images; what is broken is refused by name."""

import io
import os
import struct
import subprocess
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spark_bench.data.images import archives
from spark_bench.data.images.decoding import read_image
from spark_bench.data.images.identity import contents_digest
from spark_bench.data.images.listing import find_images
from spark_bench.data.images.numbered import NameTable
from spark_bench.data.images.sources import open_images
from spark_bench.data.pretraining import Images
from spark_bench.errors import InputError

NAMES = ['a-b/0.png', 'a/1.jpg', 'a/c/2.JPEG', 'b.webp', 'd/é ü.bmp', 'd/line\nbreak.png']


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SPARK_BENCH_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def image(seed, size=(24, 18)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))


def fill(root, names=NAMES):
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image(seed).save(path)
    return root


def pack_tar(path, root, names):
    with tarfile.open(path, 'w') as tar:
        for name in names:
            tar.add(root / name, name)
            label = tarfile.TarInfo(f'{name}.cls')
            label.size = 1
            tar.addfile(label, io.BytesIO(b'7'))
    return path


def pixels_of(source):
    return [np.asarray(read_image(source.open(index), source.name(index))) for index in range(len(source))]


def same(ones, others):
    return len(ones) == len(others) and all(np.array_equal(a, b) for a, b in zip(ones, others, strict=True))


def refused(root, *words):
    with pytest.raises(InputError) as caught:
        open_images(root)
    assert '\n' not in str(caught.value)
    for word in words:
        assert word in str(caught.value), caught.value


def test_folders_lists_and_archives_give_the_same_images(tmp_path):
    root = fill(tmp_path / 'root')
    names = [str(path.relative_to(root)) for path in find_images(root)]
    assert [Path(name) for name in names] == sorted(Path(name) for name in NAMES)
    expected = [np.asarray(Image.open(root / name).convert('RGB')) for name in names]
    folder = open_images(root)
    assert same(pixels_of(folder), expected)
    (tmp_path / 'shards').mkdir()
    for number in range(3):
        pack_tar(tmp_path / 'shards' / f'train-{number:04}.tar', root, names[2 * number : 2 * number + 2])
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        for name in names:
            archive.write(root / name, name)
    listed = [name for name in names if '\n' not in name]
    lines = [listed[0], *(f'{name} 17' for name in listed[1:3]), '', *(str(root / name) for name in listed[3:])]
    (root / 'train.txt').write_text('\n'.join(lines) + '\n')
    for other in (tmp_path / 'shards', tmp_path / 'set.zip'):
        source = open_images(other)
        assert same(pixels_of(source), expected), other
        assert source.fingerprint() == open_images(other).fingerprint()
    assert same(pixels_of(open_images(root / 'train.txt')), [expected[names.index(name)] for name in listed])


def test_the_fingerprint_changes_with_names_and_contents(tmp_path):
    root = fill(tmp_path / 'root')
    before = open_images(root).fingerprint()
    assert before == contents_digest(root, [str(path.relative_to(root)) for path in find_images(root)])
    (root / 'b.webp').rename(root / 'bb.webp')
    renamed = open_images(root).fingerprint()
    image(9, (50, 50)).save(root / 'a/1.jpg')
    assert len({before, renamed, open_images(root).fingerprint()}) == 3


@pytest.mark.parametrize('layout', ['', 'ILSVRC/Data/CLS-LOC/'])
def test_imagenets_validation_images_are_never_trained_on(tmp_path, layout):
    fill(tmp_path, [f'{layout}{split}/n0{i}/{i}.png' for split in ('train', 'val', 'test') for i in range(3)])
    source = open_images(tmp_path)
    assert len(source) == 3 and all('/train/' in source.name(i) for i in range(3))
    assert len(open_images(tmp_path / f'{layout}val')) == 3, 'unless they are named'
    names = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    pack_tar(tmp_path / 'all.tar', tmp_path, names)
    with zipfile.ZipFile(tmp_path / 'all.zip', 'w') as archive:
        for name in names:
            archive.write(tmp_path / name, name)
    for packed in ('all.tar', 'all.zip'):
        inside = open_images(tmp_path / packed)
        assert same(pixels_of(inside), pixels_of(source))
        assert len(inside) == 3 and all(name.startswith(f'{layout}train/') for name in inside.names)


def test_archives_with_the_names_of_other_programs_hold_out_the_same(tmp_path):
    names = [f'data/{split}/n0/{i}.png' for split in ('train', 'val') for i in range(3)]
    fill(tmp_path, names)
    wanted = [np.asarray(image(seed)) for seed in range(3)]
    with tarfile.open(tmp_path / 'absolute.tar', 'w') as tar:
        for name in names:
            member = tar.gettarinfo(tmp_path / name)
            member.name = f'/{name}'
            tar.addfile(member, (tmp_path / name).open('rb'))
    for path, change in (
        ('absolute.zip', lambda name: f'/{name}'),
        ('windows.zip', lambda name: name.replace('/', '\\')),
    ):
        with zipfile.ZipFile(tmp_path / path, 'w') as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(change(name)), (tmp_path / name).read_bytes())
    for path in ('absolute.tar', 'absolute.zip', 'windows.zip'):
        assert same(pixels_of(open_images(tmp_path / path)), wanted), path


def test_a_tar_whose_images_are_links_is_refused(tmp_path):
    fill(tmp_path, ['a.png'])
    for name, link in (('hard', os.link), ('soft', os.symlink)):
        link(tmp_path / 'a.png', tmp_path / f'{name}.png')
        with tarfile.open(tmp_path / f'{name}.tar', 'w') as tar:
            tar.add(tmp_path / 'a.png', 'a.png')
            tar.add(tmp_path / f'{name}.png', f'{name}.png')
        refused(tmp_path / f'{name}.tar', f'{name}.tar: {name}.png is a link', '--hard-dereference')


def test_coco_gives_the_training_split(tmp_path):
    fill(tmp_path, [f'{split}2017/{i}.jpg' for split in ('train', 'val', 'unlabeled') for i in range(2)])
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/instances_train2017.json').write_text('{}')
    source = open_images(tmp_path)
    assert [Path(source.name(i)).parent.name for i in range(len(source))] == ['train2017'] * 2


def test_what_is_held_out_by_its_name_is_told_once(tmp_path, capsys):
    # Classes whose names read as splits.
    names = [f'{place}/{i}.png' for place in ('train_station', 'test_tube', 'beach') for i in range(2)]
    root = fill(tmp_path / 'root', names)
    with zipfile.ZipFile(tmp_path / 'all.zip', 'w') as archive:
        for name in names:
            archive.write(root / name, name)
    (tmp_path / 'shards').mkdir()
    for name in ('train-0', 'val-0'):
        pack_tar(tmp_path / 'shards' / f'{name}.tar', root, names[:2])
    for path, left in ((root, 'test_tube/'), (tmp_path / 'all.zip', 'test_tube/'), (tmp_path / 'shards', 'val-0.tar')):
        for _ in range(2):
            open_images(path)
        told = ''.join(capsys.readouterr())
        assert told.count('held out for evaluation by their names') == 1 and f'{left} (1)' in told, path


def test_held_out_shards_are_left_out(tmp_path):
    root = fill(tmp_path / 'root')
    (tmp_path / 'shards').mkdir()
    for name in ('imagenet1k-train-0000', 'imagenet1k-train-0001', 'imagenet1k-validation-00'):
        pack_tar(tmp_path / 'shards' / f'{name}.tar', root, NAMES[:2])
    source = open_images(tmp_path / 'shards')
    assert len(source) == 4 and all('imagenet1k-train-' in source.name(i) for i in range(4))


def test_links_are_followed_once_and_loops_end(tmp_path):
    root = fill(tmp_path / 'root', ['a/0.png'])
    elsewhere = fill(tmp_path / 'elsewhere', ['1.png', '2.png'])
    (root / 'loop').symlink_to(root)
    (root / 'linked').symlink_to(elsewhere)
    os.mkfifo(root / 'pipe.png')
    source = open_images(root)
    assert [Path(source.name(i)).name for i in range(len(source))] == ['0.png', '1.png', '2.png']
    # As of a disk that is not mounted: what is left would be trained on alone.
    (root / 'dangling.png').symlink_to(tmp_path / 'nowhere')
    refused(root, 'dangling.png is a link that leads nowhere')


def test_held_out_shards_in_folders_of_their_own_are_left_out_too(tmp_path):
    root = fill(tmp_path / 'root')
    for name in ('shards/train-0000', 'shards/val-0000', 'test/0000', 'more/train/0'):
        (tmp_path / 'set' / name).parent.mkdir(parents=True, exist_ok=True)
        pack_tar(tmp_path / 'set' / f'{name}.tar', root, NAMES[:2])
    source = open_images(tmp_path / 'set')
    assert sorted(source.name(i).partition('.tar')[0].partition('set/')[2] for i in range(len(source))) == sorted(
        ['shards/train-0000', 'more/train/0'] * 2
    )


def test_what_would_be_half_a_data_set_is_refused_or_told(tmp_path, capsys):
    root = fill(tmp_path / 'root')
    for folder in ('gz', 'mixed'):
        (tmp_path / folder).mkdir()
        pack_tar(tmp_path / folder / 'part-0.tar', root, NAMES[:2])
    (tmp_path / 'gz/part-1.tar.gz').write_bytes(b'')
    refused(tmp_path / 'gz', 'part-1.tar.gz is compressed')
    fill(tmp_path / 'mixed', ['preview.png'])
    capsys.readouterr()
    assert len(open_images(tmp_path / 'mixed')) == 1
    assert 'not read, as archives beside images: part-0.tar (1)' in ''.join(capsys.readouterr())


def test_a_coco_folder_whose_images_to_train_on_cannot_be_told_is_refused(tmp_path):
    fill(tmp_path / 'one', [f'images/{i}.png' for i in range(2)])
    fill(tmp_path / 'few', [f'train2017/{i}.png' for i in range(2)] + ['annotations/panoptic_train/p.png'])
    for name in ('one/annotations/instances_train', 'one/annotations/instances_val'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f'{name}.json').write_text('{}')
    for name in ('train2017', 'train_few'):
        (tmp_path / f'few/annotations/instances_{name}.json').write_text('{}')
    refused(tmp_path / 'one', 'no folder has such a name', '--data-root')
    source = open_images(tmp_path / 'few')
    assert [Path(source.name(i)).parent.name for i in range(len(source))] == ['train2017'] * 2


def test_names_that_are_not_utf8_are_read(tmp_path):
    strange = os.fsdecode(b'\xff\xfe\xe9.png')
    image(0).save(tmp_path / 'plain.png')
    os.rename(tmp_path / 'plain.png', tmp_path / strange)
    source = open_images(tmp_path)
    assert source.name(0) == str(tmp_path / strange) and len(source.fingerprint()) == 64
    assert pixels_of(source)[0].shape == (18, 24, 3)


def test_a_table_of_names_gives_back_any_name():
    names = ['', 'a', 'é', 'b\nc', os.fsdecode(b'\xff'), 'long' * 100]
    table = NameTable(names)
    assert list(table) == names and len(table) == len(names)
    assert list(NameTable([])) == []


def test_wrong_roots_are_refused(tmp_path):
    refused(tmp_path / 'nowhere', 'nowhere does not exist', '--data-root')
    refused(tmp_path, 'holds no image')
    (tmp_path / 'notes.md').write_text('no')
    refused(tmp_path / 'notes.md', 'neither a folder nor')
    with tarfile.open(tmp_path / 'set.tar.gz', 'w:gz'):
        pass
    refused(tmp_path / 'set.tar.gz', 'compressed', 'unpack')
    refused(tmp_path, 'set.tar.gz', 'compressed')


def test_a_missing_line_of_a_list_is_named(tmp_path):
    fill(tmp_path, ['0.png'])
    (tmp_path / 'list.txt').write_text('0.png\n\n1.png\n')
    refused(tmp_path / 'list.txt', 'list.txt, line 3', '1.png')
    (tmp_path / 'list.txt').write_bytes(b'0.png\n\x00\n')
    refused(tmp_path / 'list.txt', 'line 2')
    (tmp_path / 'list.txt').write_text('\n')
    refused(tmp_path / 'list.txt', 'lists no image')


@pytest.mark.parametrize('damage', ['cut in data', 'cut in header', 'no end', 'empty', 'text', 'no image'])
def test_broken_shards_are_named(tmp_path, damage):
    root = fill(tmp_path / 'root')
    shard = pack_tar(tmp_path / 'train-0007.tar', root, NAMES[:3])
    contents = shard.read_bytes()
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-2]
    ends = {
        'cut in data': last.offset_data + 100,
        'cut in header': last.offset + 200,
        'no end': last.offset_data + 1024 * (last.size // 1024) + 1024,
        'empty': 0,
    }
    if damage in ends:
        shard.write_bytes(contents[: ends[damage]])
    elif damage == 'text':
        shard.write_text('this is no archive' * 1000)
    else:
        pack_tar(shard, root, [])
    refused(shard, 'train-0007.tar')


def test_the_index_of_a_shard_is_kept_checked_and_made_anew(tmp_path, cache, monkeypatch):
    shard = pack_tar(tmp_path / 'train.tar', fill(tmp_path / 'root'), NAMES[:3])
    expected = pixels_of(open_images(shard))
    [index] = (cache / 'tar-index').iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(archives, 'build_index', None)
        assert same(pixels_of(open_images(shard)), expected), 'read from the cache'
    whole = index.read_bytes()
    for damaged in (
        b'',
        whole[:50],
        whole[: len(whole) // 2],
        b'\0' * len(whole),
        whole.replace(struct.pack('<q', 512), struct.pack('<q', 513)),
    ):
        index.write_bytes(damaged)
        assert same(pixels_of(open_images(shard)), expected)
    os.utime(shard, ns=(1, 1))
    pack_tar(shard, tmp_path / 'root', NAMES[3:5])
    assert len(open_images(shard)) == 2, 'a shard that changed is indexed again'


@pytest.mark.parametrize('contents', [b'', b'PK\x03\x04', b'text' * 100])
def test_broken_zips_are_named(tmp_path, contents):
    (tmp_path / 'set.zip').write_bytes(contents)
    refused(tmp_path / 'set.zip', 'set.zip is not a whole zip archive')


def test_a_damaged_member_of_an_archive_is_a_bad_image(tmp_path):
    root = fill(tmp_path / 'root', ['0.png', '1.png'])
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        for name in ('0.png', '1.png'):
            archive.write(root / name, name)
    contents = bytearray((tmp_path / 'set.zip').read_bytes())
    contents[200] ^= 255
    (tmp_path / 'set.zip').write_bytes(contents)
    with pytest.raises(InputError, match='set.zip:0.png'):
        Images(tmp_path / 'set.zip', 16)[0]
    assert Images(tmp_path / 'set.zip', 16, 'skip')[0]['bad'].endswith('set.zip:0.png')


def test_worker_processes_read_zips_and_shards_side_by_side(tmp_path):
    root = fill(tmp_path / 'root', [f'{i}.png' for i in range(12)])
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        for i in range(12):
            archive.write(root / f'{i}.png', f'{i}.png')
    pack_tar(tmp_path / 'set.tar', root, [f'{i}.png' for i in range(12)])
    keys = [(i + 100, i) for i in range(12)]
    for name in ('set.zip', 'set.tar'):
        dataset = Images(tmp_path / name, 16)
        alone = torch.stack([dataset[key]['inputs'] for key in keys])
        loader = torch.utils.data.DataLoader(dataset, batch_size=3, sampler=keys, num_workers=3)
        assert torch.equal(torch.cat([batch['inputs'] for batch in loader]), alone)


def test_an_archive_that_holds_an_image_twice_is_refused(tmp_path):
    """A shard that was appended to, or a zip: which of the two is meant, nobody knows."""
    root = fill(tmp_path / 'root')
    shard = pack_tar(tmp_path / 'train.tar', root, [NAMES[0], NAMES[1], NAMES[0]])
    refused(shard, 'train.tar holds', NAMES[0], 'twice', 'each image once')
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        warnings.simplefilter('ignore')
        for name in (NAMES[0], NAMES[0]):
            archive.write(root / name, name)
    refused(tmp_path / 'set.zip', 'set.zip holds', 'twice')


def test_images_that_a_shard_stores_sparse_are_not_left_out(tmp_path):
    with open(tmp_path / 'a.bmp', 'wb') as file:
        file.write(b'BM')
        file.truncate(1 << 20)
    subprocess.run(['tar', '-cSf', tmp_path / 'set.tar', '-C', tmp_path, 'a.bmp'], check=True)
    with tarfile.open(tmp_path / 'set.tar') as tar:
        assert tar.getmembers()[0].issparse()
    refused(tmp_path / 'set.tar', 'a.bmp is stored sparse', 'without --sparse')
