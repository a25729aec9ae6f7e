"""What a COCO evaluation reads: the truth and the results, checked before compiled code sees them.

pycocotools reads past the end of a mask whose run lengths are damaged, and hotcoco scores it as if nothing were
wrong; so every figure that either gives rests on these checks.
"""

import json
import reprlib
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from spark_bench.data.coco.annotations import NO_MASKS, read_sound
from spark_bench.data.coco.rle import first_damaged_mask
from spark_bench.errors import InputError

_ENCODE = 'write masks with pycocotools.mask.encode'
_LARGEST = 1e9  # of a coordinate, in pixels; also keeps areas finite
_CHUNK = 4096  # masks whose run lengths are decoded at a time


@dataclass(frozen=True)
class Truth:
    """A COCO annotation file."""

    path: Path
    contents: dict  # what it holds, cleaned: ``images``, ``annotations``, ``categories``
    sizes: dict  # from image id to (height, width), in ascending order of the id
    categories: dict  # from category id to name, in ascending order of the id
    masks: bool  # whether its objects have masks


def read_truth(annotations: Path | str) -> Truth:
    """Read a COCO annotation file.

    Args:
        annotations: path; an annotation's mask is a list of polygons or an RLE, compressed or not; or none has one.

    Returns:
        :class:`Truth`

    Raises:
        InputError: one line that names the file and the first entry that cannot be evaluated.
    """
    path = Path(annotations)
    file, entries = read_sound(path)
    sizes = {image['id']: (image['height'], image['width']) for _, image in entries.images}
    names = {entry['id']: entry['name'] for entry in entries.categories}
    sizes, names = ({key: values[key] for key in sorted(values)} for values in (sizes, names))
    return Truth(path, file.contents, sizes, names, file.masks)


def load_predictions(path: Path | str) -> Any:
    """Read a COCO results file; what is in it is for :func:`check_predictions` to judge.

    Raises:
        InputError: one line, where it cannot be read or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is not JSON ({error}): write it again') from error


def check_predictions(predictions: object, truth: Truth, name: str = 'predictions', with_masks: bool = True) -> None:
    """Check COCO results against the :class:`Truth` that they are to be evaluated with.

    Args:
        predictions: what should be a list of COCO results.
        truth: their truth.
        name: of the list, for the message.
        with_masks: they have to have masks beside their boxes.

    Raises:
        InputError: one line that calls the list ``name`` and names the first unsound entry by its position in it.
    """
    if with_masks and not truth.masks:
        raise InputError(f'{truth.path} has boxes alone, with which masks cannot be compared: {NO_MASKS}')
    if not isinstance(predictions, list):
        raise InputError(f'{name} is not a list but {type(predictions).__name__}: give a list of COCO results')
    for position, entry in enumerate(predictions):
        what = _prediction_problem(entry, truth, with_masks)
        if what:
            raise InputError(f'{name}[{position}]{what}')
    for start in range(0, len(predictions) if with_masks else 0, _CHUNK):
        masks = [entry['segmentation'] for entry in predictions[start : start + _CHUNK]]
        damaged = first_damaged_mask([mask['counts'] for mask in masks], [mask['size'] for mask in masks])
        if damaged is not None:
            raise InputError(
                f"{name}[{start + damaged}]['segmentation']['counts'] is not the run lengths of a mask of "
                f'its size: {_ENCODE}'
            )


def _prediction_problem(entry, truth, with_masks):
    """What is wrong with one result, its run lengths apart, as the end of a line; None if nothing."""
    if not isinstance(entry, dict):
        return f' is not an object but {type(entry).__name__}: give COCO results'
    for key in ('image_id', 'category_id', 'bbox', 'score', *(('segmentation',) if with_masks else ())):
        if key not in entry:
            return f' has no {key!r}: give COCO results with boxes{" and masks" if with_masks else ""}'
    if not _is_number(entry['score'], 1e300):
        return f"['score'] is not a finite number: {reprlib.repr(entry['score'])}; drop the entry, or mend the model"
    if not _is_box(entry['bbox']):
        return f"['bbox'] is not four numbers x, y, width, height: {reprlib.repr(entry['bbox'])}"
    if not _is_among(entry['image_id'], truth.sizes):
        return (
            f"['image_id'] {reprlib.repr(entry['image_id'])} is not in {truth.path}: evaluate with the "
            'annotations that were predicted for'
        )
    if not _is_among(entry['category_id'], truth.categories):
        return (
            f"['category_id'] {reprlib.repr(entry['category_id'])} is not in {truth.path}: use the ids of its "
            'categories'
        )
    return _mask_problem(entry['segmentation'], truth.sizes[entry['image_id']]) if with_masks else None


def _mask_problem(mask, size):
    if not isinstance(mask, dict) or not isinstance(mask.get('counts'), (str, bytes)) or not mask['counts'].isascii():
        return f"['segmentation'] is not a compressed RLE mask: {_ENCODE}"
    if not _is_size(mask.get('size'), size):
        return (
            f"['segmentation']['size'] is {reprlib.repr(mask.get('size'))}, not [{size[0]}, {size[1]}]: predict "
            'masks of the height and width of the image'
        )
    return None


def _is_size(value, expected):
    return isinstance(value, (list, tuple)) and tuple(value) == expected and all(type(side) is int for side in value)


def _is_number(value, largest):
    # Nearly all are float, and the test for Real is slow.
    return (type(value) is float or isinstance(value, Real) and not isinstance(value, bool)) and (
        -largest <= value <= largest
    )


def _is_box(value):
    return (
        isinstance(value, (list, tuple, np.ndarray))
        and len(value) == 4
        and all(_is_number(number, _LARGEST) for number in value)
        and value[2] >= 0
        and value[3] >= 0
    )


def _is_among(value, known):
    try:
        return value in known
    except TypeError:  # a list, say
        return False
