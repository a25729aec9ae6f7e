"""BBBC038 (the 2018 Data Science Bowl) as its authors publish it, in COCO layout.

Source: Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Nature Methods
2019; https://bbbc.broadinstitute.org/BBBC038, stage1_train.zip: 670 images, a PNG for each nucleus of each.
"""

import contextlib
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from spark_bench.data.images.decoding import explain, read_image
from spark_bench.data.images.ignored import ignored_in
from spark_bench.errors import InputError, printable
from spark_bench.files import new_folder

_EXPECTED = '<id>/images/<id>.png and <id>/masks/*.png, as in stage1_train.zip of BBBC038'
_IMAGE = re.compile(r'(?:^|/)(?P<id>[^/]+)/(?P<kind>images|masks)/[^/]+\.png$', re.IGNORECASE)
# What zipfile and Pillow raise on damaged or hostile files.
_BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    SyntaxError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)
_VAL = 5  # one image of so many is for validation, where the list knows none


def convert(
    source: Path | str, output: Path | str, tell: Callable[[str], None] = lambda note: None
) -> dict[str, tuple[int, int, int]]:
    """Write ``train/``, ``val/`` and ``annotations/instances_{train,val}.json``.

    The 133 images for validation are those that the records of ``mini`` were measured on, which a list names. Of other
    images in that layout it is one of five: where SHA-256 of its id, as a number, is divisible by five.

    Args:
        source: the .zip, or the folder that it unpacks to.
        tell: takes a line on what is left out.

    Returns:
        split → (images, nuclei, empty masks).

    Raises:
        InputError: naming the file that is not as published.
    """
    with _opened(source) as (names, read), new_folder(output) as folder:
        images = _group(source, names, tell)
        held_out, counts = _held_out(images), {}
        for split in ('train', 'val'):
            (folder / split).mkdir()
            chosen = [name for name in sorted(images) if (split == 'val') == (name in held_out)]
            counts[split] = _write_split(folder, split, {name: images[name] for name in chosen}, read)
    return counts


def _write_split(folder, split, images, read):
    entries, annotations, empty = [], [], 0
    for number, (name, files) in enumerate(images.items(), start=1):
        file = files['images'][0]
        image = read_image(io.BytesIO(_contents(file, read)), file)
        image.save(folder / split / f'{name}.png')
        entries.append({'id': number, 'file_name': f'{name}.png', 'width': image.width, 'height': image.height})
        for file in sorted(files['masks']):
            mask_HW = _decode_mask(file, read)
            if mask_HW.shape != (image.height, image.width):
                raise InputError(
                    f'{file} is {mask_HW.shape[1]}x{mask_HW.shape[0]}, its image {image.width}x'
                    f'{image.height}: fetch the data set again'
                )
            if not mask_HW.any():
                empty += 1
                continue
            annotations.append(
                {'id': len(annotations) + 1, 'image_id': number, 'category_id': 1, 'iscrowd': 0, **_outlined(mask_HW)}
            )
    place = folder / 'annotations' / f'instances_{split}.json'
    place.parent.mkdir(exist_ok=True)
    place.write_text(
        json.dumps(
            {
                'images': entries,
                'annotations': annotations,
                'categories': [{'id': 1, 'name': 'nucleus', 'supercategory': 'cell'}],
            }
        )
    )
    return len(entries), len(annotations), empty


def _outlined(mask_HW):
    """Area in pixels, box (x, y, width, height) and run lengths of a mask, as COCO writes them."""
    encoded = rle.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {
        'area': int(mask_HW.sum()),
        'bbox': rle.toBbox(encoded).tolist(),
        'segmentation': {'size': list(mask_HW.shape), 'counts': encoded['counts'].decode()},
    }


def _held_out(names):
    """The images for validation, by their ids; the list has the first letters of each."""
    listed = Path(__file__).with_name('nuclei_val.txt').read_text().split()
    known = {name for name in names if name[: len(listed[0])] in listed}
    return known or {name for name in names if int(hashlib.sha256(name.encode()).hexdigest(), 16) % _VAL == 0}


def _group(source, names, tell):
    """Id of an image → its files by kind."""
    images, others = defaultdict(lambda: defaultdict(list)), []
    for name in names:
        found = _IMAGE.search(name)
        if ignored_in(name):
            continue
        if found:
            images[found['id']][found['kind'].lower()].append(name)
        elif not name.endswith('/'):
            others.append(name)
    if not images:
        raise InputError(f'{source} holds no {_EXPECTED}')
    for name, files in images.items():
        if len(files['images']) != 1 or not files['masks']:
            raise InputError(
                f'{source}: {printable(name)} has {len(files["images"])} images and '
                f'{len(files["masks"])} masks; expected are {_EXPECTED}'
            )
    if not 0 < len(_held_out(images)) < len(images):
        raise InputError(f'{source} holds {len(images)} images, too few to split them: fetch all of the data set')
    if others:
        tell(f'left out, being no {_EXPECTED}: {len(others)} files, such as {printable(min(others))}')
    return images


def _decode_mask(name, read):
    """Where a mask is not black, bool (H, W)."""
    try:
        image = Image.open(io.BytesIO(_contents(name, read)))
        image.load()
    except _BROKEN as error:
        raise InputError(f'{printable(name)} {explain(error)[0]}: fetch the data set again') from error
    if image.mode in ('1', 'L', 'I') or image.mode.startswith('I;16'):
        return np.asarray(image) != 0
    return np.asarray(image.convert('RGB')).any(axis=2)


def _contents(name, read):
    try:
        return read(name)
    except _BROKEN as error:
        raise InputError(f'{printable(name)} cannot be read ({printable(error)}): fetch the data set again') from error


@contextlib.contextmanager
def _opened(source):
    """``(names, read)`` of a .zip or a folder: its files, and a function from a name to bytes."""
    source = Path(source)
    if source.is_dir():
        yield (
            [path.relative_to(source).as_posix() for path in source.rglob('*') if path.is_file()],
            lambda name: (source / name).read_bytes(),
        )
        return
    try:
        archive = zipfile.ZipFile(source)
    except _BROKEN as error:
        raise InputError(
            f'{source} is no folder and no .zip that can be read ({error}): expected are {_EXPECTED}'
        ) from error
    with archive:
        yield archive.namelist(), archive.read
