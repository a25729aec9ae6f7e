"""The class of every image of a split: its folder, its tar file, or the label beside it."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spark_bench.data.images.archives import LABEL_SIZE, TarShards
from spark_bench.data.images.listing import WNID
from spark_bench.data.images.numbered import Source
from spark_bench.errors import InputError

# What to give, for messages.
LAYOUT = 'give one with train/<class>/ and val/<class>/ with --data-root'
_NUMBER = re.compile(r'[0-9]{1,9}')


@dataclass(frozen=True)
class LabelledImages:
    """One split, numbered, with random access.

    Attributes:
        place: what an error calls it.
        source: of its images.
        labels: (N,) int64, places in ``classes``.
        classes: names, sorted; class numbers of shards by their value. (Before :func:`with_classes_sorted`: as they
            were met, numbers as int.)
    """

    place: str
    source: Source
    labels: np.ndarray
    classes: tuple

    def __len__(self):
        return len(self.labels)


def label_members(place: str, source: Source, names: Sequence[str]) -> LabelledImages:
    """The part of an archive's images.

    Args:
        place: what an error calls it.
        names: of the images, which say the classes where no ``.cls`` lies beside the images. Where they lie in no
            folder at all, and the tar files are called by ImageNet's classes, as its authors pack it, those say them.

    Raises:
        InputError: naming the image without a class.
    """
    labels: Sequence[bytes | None] = [None]
    if isinstance(source, TarShards):
        labels, shards = source.labels(), source.shards()
        if set(labels) == {None} and not any('/' in name for name in names):
            own = [Path(shard).stem for shard in shards]
            if all(map(WNID.fullmatch, own)):
                return number_classes(place, source, own)
    if all(label is None for label in labels):
        return number_classes(place, source, (class_of(place, name) for name in names))
    _refuse_doubles(place, source)
    return number_classes(place, source, (_read_label(source, index, label) for index, label in enumerate(labels)))


def _refuse_doubles(place, source):
    """Refuse samples with several images: a label is of one of them, and the other may be a map, or a mask."""
    first: dict[tuple[int, str], str] = {}
    for name, sample in zip(source.names, source.samples(), strict=True):
        other = first.setdefault(sample, name)
        if other != name:
            raise InputError(
                f'{place}: {other} and {name} are two images of one sample, and have one label: pack shards with the '
                'images to classify alone'
            )


def _read_label(source, index, label):
    """A class number (int) or name (str)."""
    if label is None:
        raise InputError(f'image {source.name(index)} has no label: add the .cls of its class beside it')
    try:
        text = label.decode().strip()
    except UnicodeDecodeError:
        text = ''
    if not text or len(label) > LABEL_SIZE or not text.isprintable() or text.startswith('-'):
        raise InputError(
            f'the label of {source.name(index)} is no class: {label[:40]!r} is neither a number from 0 up nor a name'
        )
    return int(text) if _NUMBER.fullmatch(text) else text


def class_of(place: str, name: str) -> str:
    """The folder that an image lies in, of its path below ``place``; InputError where it lies in none."""
    own, slash, _ = name.partition('/')
    if not slash:
        raise InputError(
            f'{place} holds images outside of class folders, such as {own}: move each into the folder of its class'
        )
    return own


def number_classes(place: str, source: Source, classes: Iterable[str | int]) -> LabelledImages:
    """A part, from the class of each image."""
    numbers: dict[str | int, int] = {}
    labels = np.fromiter((numbers.setdefault(name, len(numbers)) for name in classes), np.int64, len(source))
    return LabelledImages(place, source, labels, tuple(numbers))


def demand_classes(parts: Sequence[LabelledImages]) -> None:
    """Raise InputError for parts of other classes than each other's, of one class alone, or of names and numbers."""
    kinds = {type(name): (name, part.place) for part in parts for name in part.classes}
    if len(kinds) > 1:
        (number, _), (name, place) = kinds[int], kinds[str]
        raise InputError(f'{place}: the label {name!r} is a name, others ({number}) are numbers: write either in all')
    for part, other in itertools.permutations(parts, 2):
        odd = sorted(set(part.classes).difference(other.classes))
        if odd:
            raise InputError(
                f'class {odd[0]} is in {part.place} but not in {other.place}: add its images there, or take it out here'
            )
    if len(parts[0].classes) < 2:
        raise InputError(f'{parts[0].place} holds images of 1 class ({parts[0].classes[0]}), two are needed: {LAYOUT}')


def with_classes_sorted(part: LabelledImages) -> LabelledImages:
    """The part with its classes in order, as names."""
    classes = sorted(part.classes)
    places = {name: place for place, name in enumerate(classes)}
    order = np.array([places[name] for name in part.classes], dtype=np.int64)
    return replace(part, labels=order[part.labels], classes=tuple(map(str, classes)))
