"""Files that a copy left half done, or that another program packed, are refused for what they are."""

import codecs
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from spark_bench.data.images.archives import TarShards, ZipArchive
from spark_bench.data.images.sources import open_images
from spark_bench.errors import InputError


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    for name in 'abc':
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / 'images' / f'{name}.png')
    return tmp_path


def shard_of(folder, link=False):
    path = folder / 'images.tar'
    with tarfile.open(path, 'w') as tar:
        for image in sorted((folder / 'images').iterdir()):
            tar.add(image, image.name)
        if link:
            member = tarfile.TarInfo('d.png')
            member.type, member.linkname = tarfile.SYMTYPE, 'a.png'
            tar.addfile(member)
    return path


@pytest.mark.parametrize('zeros, whole', [(1 << 20, True), (3 << 20, False)])
def test_a_shard_whose_tail_was_never_copied_is_no_shorter_shard(zeros, whole, folder):
    path = shard_of(folder)
    with open(path, 'ab') as file:
        file.write(bytes(zeros))
    if whole:
        assert len(TarShards([path])) == 3
    else:
        with pytest.raises(InputError, match='ends after 3 images in .* bytes of zeros, .*: copy it again'):
            TarShards([path])


def test_a_shard_is_refused_for_one_reason(folder):
    with pytest.raises(InputError, match='^[^(]*images.tar: d.png is a link, not an image: make the archive with tar'):
        TarShards([shard_of(folder, link=True)])


@pytest.mark.parametrize(
    'offset, value, told',
    [(8, 1, r'a.png is encrypted: unpack it'), (10, 9, r'\(number 9; 9 is Deflate64 of Windows\)')],
)
def test_an_archive_that_cannot_be_read_is_not_opened(offset, value, told, folder):
    path = folder / 'images.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.write(folder / 'images/a.png', 'a.png')
    content = bytearray(path.read_bytes())
    struct.pack_into('<H', content, content.index(b'PK\x01\x02') + offset, value)  # in the directory at the end
    path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        ZipArchive(path)


@pytest.mark.parametrize(
    'content',
    [
        codecs.BOM_UTF8 + b'images/a.png\nimages/b.png\n',
        'images/a.png\r\nimages/b.png\r\n'.encode('utf-16'),
        b'images/a.png\t3\nimages/b.png\t10\n',
        b'images/a.png 3\nimages/b.png  10\n',
    ],
    ids=['BOM', 'UTF-16', 'tabs', 'spaces'],
)
def test_lists_are_read_as_editors_and_spreadsheets_write_them(content, folder):
    (folder / 'list.txt').write_bytes(content)
    source = open_images(folder / 'list.txt')
    assert [source.name(i).rpartition('/')[2] for i in range(len(source))] == ['a.png', 'b.png']
