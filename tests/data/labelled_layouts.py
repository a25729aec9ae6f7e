"""Labelled images in every layout, for tests."""

import io
import tarfile
import zipfile

import pytest
from PIL import Image

from spark_bench.data.images.decoding import read_from
from spark_bench.data.images.labelled import open_labelled
from spark_bench.errors import InputError

CLASSES = ('b-lack', 'b', 'B', '10', '9', 'é ü')
COUNTS = {'train': 3, 'val': 2}
IMAGE = io.BytesIO()
Image.new('RGB', (4, 4)).save(IMAGE, 'PNG')
IMAGE = IMAGE.getvalue()


def save(path, seed):
    """An image of one grey, so that it is known by its first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8), (seed, seed, seed)).save(path)


def fill(root, classes=CLASSES, counts=COUNTS):
    """``split/class/…`` with an image at the top of each class and the others below."""
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


def sound_shards(root, **changes):
    """Shards in webdataset's form, two classes; ``changes`` add to the training shard."""
    for split in ('train', 'val'):
        files = {}
        for key in range(4):
            files |= {f'{key}.png': IMAGE, f'{key}.cls': str(key % 2).encode()}
        pack_tar(root / f'{split}-0.tar', files | (changes if split == 'train' else {}))
    return root


def contents_of(split):
    """Set of (class, grey) of one split."""
    return {(split.classes[split.labels[i]], read_from(split.source, i).getpixel((0, 0))[0]) for i in range(len(split))}


def refused(root, *words):
    with pytest.raises(InputError) as caught:
        open_labelled(root)
    message = str(caught.value)
    assert '\n' not in message
    for word in words:
        assert word in message, message
    return message
