"""Run-length masks of COCO, decoded in Python: pycocotools reads beyond its memory where they are malformed."""


class MaskError(ValueError):
    """A malformed run-length mask. The message continues "a segmentation ..."."""


def read_runs(mask):
    """The runs of a mask in COCO's run-length encoding.

    Args:
        mask: dict with ``size`` (height, width) and ``counts``: a list of run lengths, or COCO's compressed text.

    Returns:
        ``((height, width), runs)``: the lengths of runs of background, object, background, …, column by column.

    Raises:
        MaskError: where anything is malformed, or the runs do not fill the size.
    """
    size, counts = mask.get('size'), mask.get('counts')
    if type(size) is not list or len(size) != 2 or not all(type(side) is int and 0 < side < 10 ** 6 for side in size):
        raise MaskError('whose size is not [height, width]')
    if type(counts) is str:
        counts = _decompress(counts)
    elif type(counts) is not list or not _are_lengths(counts):
        raise MaskError('whose counts are neither a list of run lengths nor text')
    if sum(counts) != size[0] * size[1]:
        raise MaskError(f'whose counts fill {sum(counts)} pixels, not {size[1]}x{size[0]}')
    return tuple(size), counts


def _are_lengths(counts):
    # Sums of floats are floats, and other types do not add up at all.
    try:
        return type(sum(counts)) is int and min(counts, default=0) >= 0
    except (TypeError, OverflowError):
        return False


def _decompress(text):
    """COCO's text: six bits a character from '0' on, five of the number, least first, and one that says "more follows".

    From the fourth number on (of the third run of either kind) it is the difference from the one two places before.
    """
    runs, number, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise MaskError(f'whose counts hold the character {ascii(character)}')
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            if shift > 40:
                raise MaskError('whose counts hold a number too large')
            continue
        if bits & 16:
            number -= 1 << shift
        if len(runs) > 2:
            number += runs[-2]
        if number < 0:
            raise MaskError('whose counts hold a negative run')
        runs.append(number)
        number = shift = 0
    if shift:
        raise MaskError('whose counts are cut short')
    return runs


def runs_extent(height, runs):
    """The box around the object of a mask, for :func:`read_runs`' ``height`` and ``runs``.

    Returns:
        (left, top, width, height) in whole pixels, or None where the mask is empty.
    """
    left, top, right, bottom, position = None, height, 0, 0, 0
    for number, length in enumerate(runs):
        if number % 2 and length:
            first, last = position, position + length - 1
            left = first // height if left is None else left
            right = last // height
            if first // height == last // height:
                top, bottom = min(top, first % height), max(bottom, last % height)
            else:
                top, bottom = 0, height - 1
        position += length
    return None if left is None else (left, top, right - left + 1, bottom - top + 1)
