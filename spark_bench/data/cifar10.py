"""CIFAR-10 as its author publishes it, as images in a folder a class.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html, "CIFAR-10 binary version": 50,000 + 10,000 images of 32 × 32.
"""

import re
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from spark_bench.data.images.ignored import ignored_in
from spark_bench.errors import InputError
from spark_bench.files import new_folder

_FILES = {'train': [f'data_batch_{number}.bin' for number in range(1, 6)], 'test': ['test_batch.bin']}
_CLASSES, _SIDE = 'batches.meta.txt', 32
_REMEDY = 'give cifar-10-binary.tar.gz, or the folder that it unpacks to'
_BROKEN = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)


def convert(source: Path | str, output: Path | str) -> dict[str, int]:
    """Write ``train/<class>/<number>.png`` and ``test/<class>/<number>.png``, pixel for pixel.

    Args:
        source: the .tar.gz of the binary version, or the folder that it unpacks to.

    Returns:
        split → number of images.

    Raises:
        InputError: naming the file that is missing or not as published.
    """
    found = _read(Path(source))
    missing = [name for name in (_CLASSES, *_FILES['train'], *_FILES['test']) if name not in found]
    if missing:
        raise InputError(f'{source} has no {missing[0]}: {_REMEDY}')
    classes = found[_CLASSES].decode('ascii', 'replace').split()
    if len(classes) != 10 or not all(re.fullmatch(r'[a-z]+', name) for name in classes):
        raise InputError(f'{source}: {_CLASSES} does not hold ten names of classes: {_REMEDY}')
    with new_folder(output) as folder:
        return {
            split: _write_split(folder / split, classes, [(name, found[name]) for name in names])
            for split, names in _FILES.items()
        }


def _write_split(folder, classes, batches):
    for name in classes:
        (folder / name).mkdir(parents=True)
    count = 0
    for name, content in batches:
        records = np.frombuffer(content, np.uint8)
        if not len(records) or len(records) % (1 + 3 * _SIDE**2):
            raise InputError(f'{name} is {len(records)} bytes long, no whole number of images: {_REMEDY}')
        records = records.reshape(-1, 1 + 3 * _SIDE**2)
        if records[:, 0].max() >= len(classes):
            raise InputError(f'{name} has a label {records[:, 0].max()}, above 9: {_REMEDY}')
        for record in records:
            image_HW3 = record[1:].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)
            Image.fromarray(image_HW3).save(folder / classes[record[0]] / f'{count:05d}.png')
            count += 1
    return count


def _read(source):
    """Name → content of the files that are wanted, from the archive or a folder."""
    places, contents = {}, {}
    try:
        for path, read in _files_of(source):
            # Which of two files of one name is meant cannot be told.
            if path.name in places:
                raise InputError(f'{source} holds {path.name} twice, {places[path.name]} and {path}: {_REMEDY}')
            places[path.name], contents[path.name] = path, read()
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(f'{source} cannot be read ({error}): {_REMEDY}') from error
    return contents


def _files_of(source):
    """``(path, function that reads it)`` of the files that are wanted."""
    if source.is_dir():
        yield from (
            (path, path.read_bytes) for path in sorted(source.rglob('*')) if _is_wanted(path.relative_to(source))
        )
        return
    with tarfile.open(source) as archive:
        for member in archive:
            if member.isfile() and _is_wanted(Path(member.name)) and member.size < 2**28:
                yield Path(member.name), archive.extractfile(member).read
        while archive.fileobj.read(2**20):  # to the end, where gzip keeps its checksum
            pass


def _is_wanted(path):
    return path.name in (_CLASSES, *_FILES['train'], *_FILES['test']) and not ignored_in(path.as_posix())
