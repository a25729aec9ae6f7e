"""What a COCO evaluation reads: the truth and the results, checked before compiled code sees them.

pycocotools reads past the end of a mask whose run lengths are damaged, and hotcoco scores it as if nothing were
wrong; so every figure that either gives rests on these checks.
"""

import json
import reprlib
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np

from spark_bench.errors import InputError

_ENCODE = 'write masks with pycocotools.mask.encode'
_LARGEST = 1e9  # of a coordinate, in pixels; also keeps areas finite
_CHUNK = 4096  # masks whose run lengths are decoded at a time


@dataclass(frozen=True)
class Truth:
    """A COCO annotation file.

    Attributes:
        path: of the file.
        contents: what it holds: ``images``, ``annotations``, ``categories``.
        sizes: from image id to (height, width), in ascending order of the id.
        categories: from category id to name, in ascending order of the id.
    """

    path: Path
    contents: dict
    sizes: dict
    categories: dict


def read_truth(annotations):
    """Read a COCO annotation file.

    Args:
        annotations: path; an annotation's mask is a list of polygons or an RLE, compressed or not.

    Returns:
        :class:`Truth`

    Raises:
        InputError: one line that names the file and the first entry that cannot be evaluated.
    """
    path = Path(annotations)
    contents = _read_json(path)
    for key, needed in (('images', ('id', 'width', 'height')), ('categories', ('id', 'name')),
                        ('annotations', ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation'))):
        if not isinstance(contents, dict) or not isinstance(contents.get(key), list):
            raise InputError(f'{path} is not in COCO format: it has no list {key!r}')
        for position, entry in enumerate(contents[key]):
            missing = needed if not isinstance(entry, dict) else [name for name in needed if name not in entry]
            if missing:
                raise InputError(f'{path}: {key}[{position}] has no {missing[0]!r}: see cocodataset.org/#format-data')
    sizes = {image['id']: (image['height'], image['width']) for image in _by_id(path, contents, 'images')}
    categories = {entry['id']: entry['name'] for entry in _by_id(path, contents, 'categories')}
    _by_id(path, contents, 'annotations')
    truth = Truth(path, contents, sizes, categories)
    _raise_first(_annotation_problem, contents['annotations'], truth, f'{path}: annotations')
    return truth


def _by_id(path, contents, key):
    entries = contents[key]
    identities = [entry['id'] for entry in entries]
    try:
        if len(set(identities)) != len(identities):
            raise InputError(f'{path}: two entries of {key!r} have the same id: number them anew')
        return sorted(entries, key=lambda entry: entry['id'])
    except TypeError:
        raise InputError(f'{path}: the ids of {key!r} are not all of one kind: use integers') from None


def load_predictions(path):
    """Read a COCO results file.

    Args:
        path: JSON file, a list of objects with ``image_id``, ``category_id``, ``bbox`` ([x, y, width, height] in
            pixels), ``score`` and ``segmentation`` (compressed RLE).

    Returns:
        list of dict, every one sound in itself. Whether their pictures and categories exist is for
        :func:`check_predictions` to say.

    Raises:
        InputError: one line that names the file and the first entry that is not sound.
    """
    predictions = _read_json(Path(path))
    _check(predictions, None, f'{path}: predictions')
    return predictions


def check_predictions(predictions, truth):
    """Check COCO results against the :class:`Truth` that they are to be evaluated with.

    Raises:
        InputError: one line that names the first unsound entry by its position in the list.
    """
    _check(predictions, truth, 'predictions')


def _read_json(path):
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is not JSON ({error}): write it again') from error


def _check(predictions, truth, name):
    if not isinstance(predictions, list):
        raise InputError(f'{name} is not a list but {type(predictions).__name__}: give a list of COCO results')
    _raise_first(_prediction_problem, predictions, truth, name)


def _raise_first(problem, entries, truth, name):
    for position, entry in enumerate(entries):
        what = problem(entry, truth)
        if what:
            raise InputError(f'{name}[{position}]{what}')
    # Polygons have no run lengths, and uncompressed ones are summed where they are read.
    masks = [(position, entry['segmentation']) for position, entry in enumerate(entries)
             if isinstance(entry['segmentation'], dict) and not isinstance(entry['segmentation']['counts'], list)]
    for start in range(0, len(masks), _CHUNK):
        chunk = masks[start:start + _CHUNK]
        damaged = first_damaged_mask([mask['counts'] for _, mask in chunk], [mask['size'] for _, mask in chunk])
        if damaged is not None:
            raise InputError(f"{name}[{chunk[damaged][0]}]['segmentation']['counts'] is not the run lengths of a "
                             f'mask of its size: {_ENCODE}')


def _prediction_problem(entry, truth):
    """What is wrong with one result, its run lengths apart, as the end of a line; None if nothing."""
    if not isinstance(entry, dict):
        return f' is not an object but {type(entry).__name__}: give COCO results'
    for key in ('image_id', 'category_id', 'bbox', 'score', 'segmentation'):
        if key not in entry:
            return f' has no {key!r}: give COCO results with boxes and masks'
    if not _is_number(entry['score'], 1e300):
        return f"['score'] is not a finite number: {reprlib.repr(entry['score'])}; drop the entry, or mend the model"
    if not _is_box(entry['bbox']):
        return f"['bbox'] is not four numbers x, y, width, height: {reprlib.repr(entry['bbox'])}"
    size = None
    if truth:
        if not _is_among(entry['image_id'], truth.sizes):
            return f"['image_id'] {reprlib.repr(entry['image_id'])} is not in {truth.path}: evaluate with the " \
                   'annotations that were predicted for'
        if not _is_among(entry['category_id'], truth.categories):
            return f"['category_id'] {reprlib.repr(entry['category_id'])} is not in {truth.path}: use the ids of its " \
                   'categories'
        size = truth.sizes[entry['image_id']]
    return _mask_problem(entry['segmentation'], size)


def _annotation_problem(entry, truth):
    """The same for one annotation of the truth."""
    for key, known in (('image_id', truth.sizes), ('category_id', truth.categories)):
        if not _is_among(entry[key], known):
            return f'[{key!r}] {reprlib.repr(entry[key])} does not exist in the file'
    if not _is_box(entry['bbox']):
        return f"['bbox'] is not four numbers x, y, width, height: {reprlib.repr(entry['bbox'])}"
    if not _is_number(entry['area'], _LARGEST ** 2) or entry['iscrowd'] not in (0, 1):
        return "['area'] is not a number, or ['iscrowd'] neither 0 nor 1"
    mask, size = entry['segmentation'], truth.sizes[entry['image_id']]
    if isinstance(mask, dict) and isinstance(mask.get('counts'), list):
        runs = mask['counts']
        sound = all(isinstance(run, int) and run >= 0 for run in runs) and sum(runs) == size[0] * size[1]
        return None if sound and _is_size(mask.get('size'), size) else (
            f"['segmentation'] is not the run lengths of a mask of {size[0]} x {size[1]} pixels")
    if isinstance(mask, list):
        # Four numbers in the first place pycocotools takes for a box, and then fails.
        sound = mask and all(isinstance(part, list) and all(_is_number(value, _LARGEST) for value in part)
                             for part in mask) and len(mask[0]) > 4
        return None if sound else "['segmentation'] is not a list of polygons x1, y1, x2, y2, x3, y3, ..."
    return _mask_problem(mask, size)


def _mask_problem(mask, size):
    if not isinstance(mask, dict) or not isinstance(mask.get('counts'), (str, bytes)) or not mask['counts'].isascii():
        return f"['segmentation'] is not a compressed RLE mask: {_ENCODE}"
    if not _is_size(mask.get('size'), size):
        expected = f'[{size[0]}, {size[1]}], the height and width of its picture' if size else 'a height and a width'
        return f"['segmentation']['size'] is {reprlib.repr(mask.get('size'))}, not {expected}: predict masks of the " \
               'size of the picture'
    return None


def _is_size(value, expected):
    return (isinstance(value, (list, tuple)) and len(value) == 2
            and all(isinstance(side, int) and 0 < side < _LARGEST for side in value)
            and (expected is None or tuple(value) == expected))


def _is_number(value, largest):
    # Nearly all are float, and the test for Real is slow.
    return (type(value) is float or isinstance(value, Real) and not isinstance(value, bool)) and (
        -largest <= value <= largest)


def _is_box(value):
    return (isinstance(value, (list, tuple, np.ndarray)) and len(value) == 4
            and all(_is_number(number, _LARGEST) for number in value) and value[2] >= 0 and value[3] >= 0)


def _is_among(value, known):
    try:
        return value in known
    except TypeError:  # a list, say
        return False


def first_damaged_mask(counts, sizes):
    """Find a mask that pycocotools' ``rleFrString`` must not be given.

    Args:
        counts: of each mask, its compressed run lengths: str or bytes, ASCII. The format is that of maskApi.c:
            five bits to a character, lowest first, 32 for "more to come", two's complement; the runs from the
            fourth on as differences to the last but one.
        sizes: of each mask, (height, width).

    Returns:
        index of the first mask whose runs are not all positive (the first may be 0) or do not fill its size; None if
        there is none.
    """
    texts = [text.decode() if isinstance(text, bytes) else text for text in counts]
    lengths = np.array([len(text) for text in texts])
    if not lengths.all():
        return int(np.argmin(lengths))
    code = np.frombuffer(''.join(texts).encode(), np.uint8).astype(np.int64) - 48
    mask_of_code = np.repeat(np.arange(len(texts)), lengths)
    is_end = code & 32 == 0
    ends = np.flatnonzero(is_end)
    starts = np.concatenate([[0], ends[:-1] + 1])
    bad = (code < 0) | (code > 63)
    bad[np.cumsum(lengths) - 1] |= ~is_end[np.cumsum(lengths) - 1]
    if not bad.any():
        bad[starts] = ends - starts >= 7  # 35 bits, more than a run length or a difference of two can take
    if bad.any():
        return int(mask_of_code[np.argmax(bad)])

    digit = np.arange(len(code)) - np.repeat(starts, ends - starts + 1)
    runs = np.add.reduceat((code & 31) << 5 * digit, starts)
    runs -= np.where(code[ends] & 16, 1 << 5 * (ends - starts + 1), 0)
    mask_of_run = mask_of_code[starts]
    first_runs = np.searchsorted(mask_of_run, np.arange(len(texts)))
    place = np.arange(len(runs)) - first_runs[mask_of_run]
    for later in (np.flatnonzero(place % 2 == 1), np.flatnonzero((place % 2 == 0) & (place > 0))):
        runs[later] = _sums_within(runs[later], mask_of_run[later])
    filled = np.add.reduceat(runs, first_runs) == np.prod(np.array(sizes, np.int64), axis=1)
    damaged = (runs < 0) | ((runs == 0) & (place > 0)) | ~filled[mask_of_run]
    return int(mask_of_run[np.argmax(damaged)]) if damaged.any() else None


def _sums_within(values, group):
    """Cumulative sums that start anew with each group; `group` is ascending."""
    sums = np.cumsum(values)
    first = np.searchsorted(group, group)
    return sums - (sums - values)[first]
