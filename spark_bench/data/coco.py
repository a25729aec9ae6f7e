"""Folders in COCO layout: finding their parts and refusing broken ones before any training."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from spark_bench.data.annotations import REMEDIES, name_entry, read_sound, shorten
from spark_bench.data.decoding import read_stated
from spark_bench.errors import InputError

# Up to this many pictures a split is decoded as a whole beforehand. A larger one would take minutes; there a
# damaged picture stops the run, by name, when it is first read.
DECODE_LIMIT = 2000
# Up to this many, their sizes are read: the val split of COCO has 5,000, and is used behind the training alone.
SIZE_LIMIT = 20000


@dataclass(frozen=True)
class Split:
    """One split of a COCO data set.

    Attributes:
        annotations: JSON file.
        pictures: folder that its ``file_name`` entries are relative to.
        categories: names in the order of the file.
        sizes: from ``file_name`` to (width, height).
        annotated: number of pictures with an annotation.
        sha256: of the annotation file, hex.
    """

    annotations: Path
    pictures: Path
    categories: tuple[str, ...]
    sizes: dict[str, tuple[int, int]]
    annotated: int
    sha256: str

    @property
    def count(self):
        """Number of pictures."""
        return len(self.sizes)


def open_coco(root):
    """Find the train and val split of a folder in COCO layout and check both annotation files.

    The layout is ``annotations/instances_<split>.json`` beside ``<split>/``, where ``<split>`` is
    ``train`` or ``val``, or either with a year (``train2017``).

    Returns:
        ``(train, val)``, two :class:`Split`.

    Raises:
        InputError: one line naming the file and what is wrong with it.
    """
    train, val = (open_split(root, name) for name in ('train', 'val'))
    if train.categories != val.categories:
        raise InputError(f'{train.annotations} and {val.annotations} name different categories: use the annotations '
                         'of one data set')
    return train, val


def open_split(root, name):
    """Find one split, ``train`` or ``val``, alone; see :func:`open_coco`."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f'data root {root} is not a folder: give a folder in COCO layout with --data-root')
    found = sorted((root / 'annotations').glob(f'instances_{name}*.json'))
    if not found:
        raise InputError(f'{root} has no annotations/instances_{name}*.json: give a folder in COCO layout with '
                         '--data-root')
    if len(found) > 1:
        raise InputError(f'{root}/annotations has {len(found)} files instances_{name}*.json: keep one')
    annotations = found[0]
    pictures = root / annotations.stem.removeprefix('instances_')
    if not pictures.is_dir():
        raise InputError(f'{pictures} is not a folder: put the pictures of {annotations.name} there')
    return read_split(annotations, pictures)


def read_split(annotations, pictures):
    """Read one annotation file and refuse what would break training or evaluation; see :func:`open_coco`."""
    raw, _, entries = read_sound(annotations)
    names = tuple(entry['name'] for entry in entries.categories)
    annotated = len({entry['image_id'] for _, entry in entries.annotations})
    return Split(annotations, pictures, names, _sizes(annotations, entries.images), annotated,
                 hashlib.sha256(raw).hexdigest())


def _sizes(annotations, images):
    """From ``file_name`` to (width, height); a picture listed twice would lack half of its objects each time."""
    sizes, seen = {}, set()
    for position, entry in images:
        name = entry['file_name']
        if os.path.normpath(name) in seen:
            raise InputError(f'{annotations}: {name_entry("images", position, entry)} has the file_name '
                             f'{shorten(name)} of another: {REMEDIES["duplicate name"]}')
        seen.add(os.path.normpath(name))
        sizes[name] = entry['width'], entry['height']
    return sizes


def check_pictures(split):
    """Check that every picture of a :class:`Split` is there, whole and of the stated size.

    Raises:
        InputError: naming the file.
    """
    absent = [name for name in split.sizes if not (split.pictures / name).is_file()]
    if absent:
        more = f' and {len(absent) - 1} more' if len(absent) > 1 else ''
        raise InputError(f'{split.annotations} names pictures that are not in {split.pictures}: {absent[0]}{more}; '
                         'restore them, or take them out of the file')
    if split.count <= SIZE_LIMIT:
        for name, stated in split.sizes.items():
            read_stated(split.pictures / name, stated, f'{split.annotations.name} says', split.count <= DECODE_LIMIT)
