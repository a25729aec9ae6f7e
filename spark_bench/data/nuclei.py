"""``spark-bench data nuclei``: BBBC038 (the 2018 Data Science Bowl) as its authors publish it, in COCO layout.

Source: Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Nature Methods
2019; https://bbbc.broadinstitute.org/BBBC038, stage1_train.zip: 670 pictures, a PNG for each nucleus of each.
"""

import contextlib
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from spark_bench.data.leftovers import leftover_in
from spark_bench.data.values import to_rgb
from spark_bench.errors import InputError
from spark_bench.files import new_folder

_EXPECTED = '<id>/images/<id>.png and <id>/masks/*.png, as in stage1_train.zip of BBBC038'
_PICTURE = re.compile(r'(?:^|/)(?P<id>[A-Za-z0-9_-]+)/(?P<kind>images|masks)/[^/]+\.png$')
# What zipfile and Pillow raise on damaged or hostile files.
_BROKEN = (OSError, EOFError, RuntimeError, SyntaxError, ValueError, zipfile.BadZipFile, zlib.error,
           Image.DecompressionBombError)
_VAL = 5  # one picture of so many is for validation


def main(args):
    """Convert ``args.source`` to ``args.output`` and print what is there; exit status 0."""
    counts = convert(args.source, args.output)
    for split, (pictures, nuclei, empty) in counts.items():
        left_out = f', {empty} empty masks left out' if empty else ''
        print(f'{args.output}/{split}: {pictures} pictures, {nuclei} nuclei{left_out}')
    return 0


def convert(source, output):
    """Write ``train/``, ``val/`` and ``annotations/instances_{train,val}.json``.

    A picture is for validation where SHA-256 of its id, as a number, is divisible by five: the same ones for everyone.

    Args:
        source: the .zip, or the folder that it unpacks to.
        output: folder to make.

    Returns:
        split → (pictures, nuclei, empty masks).

    Raises:
        InputError: naming the file that is not as published.
    """
    with _opened(source) as (names, read), new_folder(output) as folder:
        pictures = _group(source, names)
        counts = {}
        for split in ('train', 'val'):
            (folder / split).mkdir()
            chosen = [name for name in sorted(pictures) if (split == 'val') == _is_val(name)]
            counts[split] = _write_split(folder, split, {name: pictures[name] for name in chosen}, read)
    return counts


def _write_split(folder, split, pictures, read):
    images, annotations, empty = [], [], 0
    for number, (name, files) in enumerate(pictures.items(), start=1):
        picture = _decode(files['images'][0], read, lambda opened: to_rgb(opened)[0])
        picture.save(folder / split / f'{name}.png')
        images.append({'id': number, 'file_name': f'{name}.png', 'width': picture.width, 'height': picture.height})
        for file in sorted(files['masks']):
            mask_HW = np.asarray(_decode(file, read, lambda opened: opened.convert('L'))) > 0
            if mask_HW.shape != (picture.height, picture.width):
                raise InputError(f'{file} is {mask_HW.shape[1]}x{mask_HW.shape[0]}, its picture {picture.width}x'
                                 f'{picture.height}: fetch the data set again')
            if not mask_HW.any():
                empty += 1
                continue
            annotations.append({'id': len(annotations) + 1, 'image_id': number, 'category_id': 1, 'iscrowd': 0,
                                **_outlined(mask_HW)})
    place = folder / 'annotations' / f'instances_{split}.json'
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({'images': images, 'annotations': annotations, 'categories': [
        {'id': 1, 'name': 'nucleus', 'supercategory': 'cell'}]}))
    return len(images), len(annotations), empty


def _outlined(mask_HW):
    """Area in pixels, box (x, y, width, height) and run lengths of a mask, as COCO writes them."""
    encoded = rle.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {'area': int(mask_HW.sum()), 'bbox': rle.toBbox(encoded).tolist(),
            'segmentation': {'size': list(mask_HW.shape), 'counts': encoded['counts'].decode()}}


def _is_val(name):
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % _VAL == 0


def _group(source, names):
    """Id of a picture → its files by kind."""
    pictures = defaultdict(lambda: defaultdict(list))
    for name in names:
        found = _PICTURE.search(name)
        if found and not leftover_in(name):
            pictures[found['id']][found['kind']].append(name)
    if not pictures:
        raise InputError(f'{source} holds no {_EXPECTED}')
    for name, files in pictures.items():
        if len(files['images']) != 1 or not files['masks']:
            raise InputError(f'{source}: {name} has {len(files["images"])} pictures and {len(files["masks"])} masks; '
                             f'expected are {_EXPECTED}')
    if len({_is_val(name) for name in pictures}) < 2:
        raise InputError(f'{source} holds {len(pictures)} pictures, too few to split them: fetch all of the data set')
    return pictures


def _decode(name, read, convert):
    try:
        return convert(Image.open(io.BytesIO(read(name))))
    except _BROKEN as error:
        raise InputError(f'{name} cannot be decoded ({error}): fetch the data set again') from error


@contextlib.contextmanager
def _opened(source):
    """``(names, read)`` of a .zip or a folder: its files, and a function from a name to bytes."""
    source = Path(source)
    if source.is_dir():
        yield ([path.relative_to(source).as_posix() for path in source.rglob('*.png')],
               lambda name: (source / name).read_bytes())
        return
    try:
        archive = zipfile.ZipFile(source)
    except _BROKEN as error:
        raise InputError(f'{source} is no folder and no .zip that can be read ({error}): expected are '
                         f'{_EXPECTED}') from error
    with archive:
        yield archive.namelist(), archive.read
