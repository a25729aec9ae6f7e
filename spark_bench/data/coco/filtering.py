"""Which annotations training leaves out, and when so many that the file cannot be what was meant.

The rules are those of mmdet's ``CocoDataset.parse_data_info``; tests hold the two to each other.
"""

from collections import Counter

# What training leaves out above this part of a split's annotations, and above this number, is no accident of entries.
MANY, FEW = 0.05, 2
# Crowds are meant to be left out, but are never most of what was annotated.
MANY_CROWDS = 0.5
# From why an annotation is left out to what can be done where many are.
REASONS = {
    'crowds': 'where they are single objects, set iscrowd 0',
    'marked to be ignored': "where they are objects to learn from, take out the key 'ignore'",
    'boxes in 0 … 1': 'multiply boxes and areas by width and height: COCO states pixels',
    'boxes outside of their image': 'a box is [left, top, width, height] in pixels of the image as it is seen',
    'of area 0': 'state the area of the mask',
    'boxes below 1 pixel a side': 'a box is [left, top, width, height] in pixels',
}


def why_left_out(annotation: dict, size: tuple) -> str | None:
    """Why training does not learn from an annotation: a key of ``REASONS``, or None where it does.

    Args:
        annotation: entry that :func:`spark_bench.data.coco.annotations.examine` passed.
        size: (width, height) of its image in pixels.
    """
    left, top, width, height = annotation['bbox']
    if annotation.get('ignore'):
        return 'marked to be ignored'
    if (
        0 <= left <= 1
        and 0 <= top <= 1
        and 0 < width <= 1
        and 0 < height <= 1
        and min(size) > 1
        and (width < 1 or height < 1)
    ):
        return 'boxes in 0 … 1'
    inside = [
        max(0, min(start + length, side) - max(start, 0))
        for start, length, side in ((left, width, size[0]), (top, height, size[1]))
    ]
    if inside[0] * inside[1] == 0:
        return 'boxes outside of their image' if width > 0 and height > 0 else 'boxes below 1 pixel a side'
    if annotation['area'] <= 0:
        return 'of area 0'
    if width < 1 or height < 1:
        return 'boxes below 1 pixel a side'
    return 'crowds' if annotation['iscrowd'] else None


def judge_counts(reasons: Counter) -> tuple | None:
    """Judge how many annotations of a split are of use.

    Args:
        reasons: from :func:`why_left_out`'s answer to the number of annotations, None for those of use.

    Returns:
        ``(kind of spark_bench.data.check.report.KINDS, what was found, remedy)``, or None where enough are of use.
    """
    total, left = sum(reasons.values()), Counter({reason: count for reason, count in reasons.items() if reason})
    faulty = left.total() - left['crowds']
    if not total or reasons[None] and faulty <= max(MANY * total, FEW) and left['crowds'] <= MANY_CROWDS * total:
        return None
    told = ', '.join(f'{count:,} {reason}' for reason, count in left.most_common())
    remedy = '; '.join(REASONS[reason] for reason, _ in left.most_common(2))
    if not reasons[None]:
        return 'nothing of use', f'of {total:,} annotations none is of use: {told}', remedy
    return 'many left out', f'of {total:,} annotations {left.total():,} are left out: {told}', remedy
