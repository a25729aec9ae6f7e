"""What a check found: counted, with the first examples of each kind, printed for people or written for machines."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from spark_bench.data.coco.annotations import NO_MASKS, REMEDIES
from spark_bench.data.images.decoding import REMEDY_TURNED, REMEDY_VALUES
from spark_bench.errors import printable

PROBLEM, NOTE = 'problem', 'note'
_DROP = 'correct them, or take them out of the file'
_HARMLESS = 'nothing need be done'
# From a kind to (severity, what it is, remedy).
KINDS = {
    'not readable': (PROBLEM, 'annotation files that cannot be read', REMEDIES['not readable']),
    'split absent': (PROBLEM, 'splits that are absent', 'add them: training needs train and val'),
    'several files': (PROBLEM, 'splits with several annotation files', 'keep one a split'),
    'format': (PROBLEM, 'annotation files not in COCO format', REMEDIES['format']),
    'empty': (PROBLEM, 'annotation files with an empty list', REMEDIES['empty']),
    'entry': (PROBLEM, 'entries that lack a key', REMEDIES['entry']),
    'no mask': (PROBLEM, 'annotations without a mask', REMEDIES['no mask']),
    'id': (PROBLEM, 'ids that are not whole numbers', REMEDIES['id']),
    'duplicate id': (PROBLEM, 'ids that occur twice', REMEDIES['duplicate id']),
    'reference': (PROBLEM, 'annotations of images or categories that are not there', REMEDIES['reference']),
    'image entry': (PROBLEM, 'images stated wrongly', REMEDIES['image entry']),
    'category entry': (PROBLEM, 'categories stated wrongly', REMEDIES['category entry']),
    'bbox': (PROBLEM, 'boxes that are not four numbers', REMEDIES['bbox']),
    'area or crowd': (PROBLEM, 'areas and crowd flags of the wrong kind', REMEDIES['area or crowd']),
    'segmentation': (PROBLEM, 'malformed masks', REMEDIES['segmentation']),
    'duplicate name': (PROBLEM, 'images listed twice', REMEDIES['duplicate name']),
    'file name': (
        PROBLEM,
        'file names that lead out of the folder, or that no file can have',
        'name files relative to the folder of images',
    ),
    'negative box': (
        PROBLEM,
        'boxes of negative width or height, or area',
        f'boxes are [left, top, width, height]; {_DROP}',
    ),
    'box outside': (PROBLEM, 'boxes outside of their image', f'was the image scaled or turned? {_DROP}'),
    'mask outside': (PROBLEM, 'masks outside of their image', f'was the image scaled or turned? {_DROP}'),
    'empty mask': (PROBLEM, 'masks without a pixel', _DROP),
    'nothing of use': (PROBLEM, 'splits without an object to learn from or to measure', ''),
    'many left out': (PROBLEM, 'splits of which training leaves out more than a few annotations', ''),
    'masks elsewhere': (
        PROBLEM,
        'splits whose masks lie apart from most of their boxes',
        'COCO states boxes and polygons in pixels of the image: one of the two is of another size, or in 0 … 1',
    ),
    'duplicate category': (PROBLEM, 'category names that occur twice', 'give each category a name of its own'),
    'categories differ': (
        PROBLEM,
        'categories that are in only one of train and val',
        'use the annotations of one data set',
    ),
    'folder': (PROBLEM, 'folders that are absent or cannot be read', 'restore them, or change their permissions'),
    'absent': (
        PROBLEM,
        'images that are not there',
        'restore them, name them as they are, or take them out of the annotations',
    ),
    'image': (PROBLEM, 'images that cannot be decoded', 'copy them again, or take them out of the data set'),
    'unlisted image': (
        PROBLEM,
        'images that are not listed and cannot be decoded: pretraining would stop there',
        'copy them again, or take them out of the folder',
    ),
    'values': (PROBLEM, 'images whose values have no plain scale', REMEDY_VALUES),
    'size': (
        PROBLEM,
        'images of another size than stated',
        'restore the images that the annotations were made for, or state their size',
    ),
    'size as stored': (PROBLEM, 'images stated in the size that they have before EXIF turns them', REMEDY_TURNED),
    'leak': (PROBLEM, 'images of val that are in train as well', 'take them out of one: they spoil what is measured'),
    'classes differ': (PROBLEM, 'classes that are in only one of train and val', 'add the folder, or take it out'),
    'empty class': (PROBLEM, 'classes without an image', 'fill them, or take them out'),
    'outside of classes': (PROBLEM, 'images outside of class folders', 'move each into the folder of its class'),
    'few classes': (PROBLEM, 'splits with fewer than two classes', 'give train/<class>/ and val/<class>/'),
    'link': (PROBLEM, 'links that lead nowhere', 'restore what they lead to'),
    'two classes': (PROBLEM, 'folders that a link puts into two classes', 'remove one of the two'),
    'ImageNet count': (PROBLEM, 'counts that differ from ImageNet-1k', 'copy it again, where it should be whole'),
    'ImageNet subset': (NOTE, 'counts that differ from ImageNet-1k', 'nothing, where a subset is meant'),
    'few leaks': (NOTE, 'images of val, below one in a thousand, that are in train as well', _HARMLESS),
    'box sticks out': (NOTE, 'boxes that reach up to 1 pixel outside of their image', _HARMLESS),
    'mask sticks out': (NOTE, 'masks that reach up to 1 pixel outside of their image', _HARMLESS),
    'left out': (NOTE, 'annotations that training leaves out', 'look at some of them'),
    'short polygon': (NOTE, 'masks with a polygon of fewer than 6 coordinates, which is left out', _HARMLESS),
    'whole number': (NOTE, 'whole numbers written as 1.0, or as text', _HARMLESS),
    'bare polygon': (NOTE, 'masks that are one polygon without a list around it', _HARMLESS),
    'no file name': (NOTE, 'images without file_name, taken from coco_url', _HARMLESS),
    'no crowd flag': (NOTE, 'annotations without iscrowd, taken for 0', _HARMLESS),
    'no area': (NOTE, "annotations without area, taken for the mask's", _HARMLESS),
    'no box': (NOTE, "annotations without bbox, taken for the mask's", _HARMLESS),
    'small image': (
        NOTE,
        'images below 32 pixels a side, which recipes for COCO leave out of training',
        'nothing, where other recipes are meant',
    ),
    'box and mask': (NOTE, 'boxes that hardly overlap the box of their mask', 'look at some of them'),
    'many crowds': (
        NOTE,
        'splits of which more than 5 % are crowds, which training leaves out',
        "where they are single objects, as of CVAT's brush, set iscrowd 0",
    ),
    'annotation id': (NOTE, 'annotations with ids that evaluation cannot hold: all are numbered anew', _HARMLESS),
    'same annotation': (NOTE, 'annotations that repeat another: same image, category and box', 'take them out'),
    'boxes alone': (NOTE, 'annotation files without masks: they are for detectors of boxes', NO_MASKS),
    'unused category': (NOTE, 'categories without an annotation', _HARMLESS),
    'no annotation': (NOTE, 'images without an annotation, which training leaves out', _HARMLESS),
    'not listed': (NOTE, 'files that the annotations do not list', _HARMLESS),
    'shared name': (NOTE, 'file names in both train and val', _HARMLESS),
    'same image': (NOTE, 'images whose contents repeat another one of the split', 'take them out'),
    'turned': (
        NOTE,
        'images that EXIF turns, which are read upright, as annotation tools show them',
        'see whether the boxes fit them upright',
    ),
    'scaled': (
        NOTE,
        'images whose values are scaled to 8 bits',
        'see whether they look right: `spark-bench visualize` and training read them so',
    ),
    'colours': (NOTE, 'images not in RGB, which is what they are converted to', _HARMLESS),
    'leftover': (
        NOTE,
        'files and folders that are hidden, of the system or written by a run, which are passed over',
        _HARMLESS,
    ),
    'not an image': (NOTE, 'files that are no images by their name', _HARMLESS),
}
# So many examples of a kind are kept for machines, at the least.
_KEPT = 1000
# Remedies of one kind that are shown.
_REMEDIES = 3


@dataclass
class Finding:
    """One kind of finding: how often, the first examples as (file, detail), and the first remedies of their own."""

    count: int = 0
    examples: list = field(default_factory=list)
    remedies: list = field(default_factory=list)

    @property
    def remedy(self) -> str:
        return '; '.join(self.remedies)


class Report:
    """Collects findings.

    Args:
        layout: ``coco`` or ``imagenet``.
        decoded: whether images are decoded and compared.
        limit_shown: examples of a kind that will be shown.

    Attributes:
        splits: from the name of a split to a dict of its counts.
        bad_files: names of the files that have them.
    """

    def __init__(self, root: Path, layout: str, decoded: bool, limit_shown: int = 5):
        self.root, self.layout, self.decoded = root, layout, decoded
        self.splits: dict[str, dict[str, int]] = {}
        self.findings: dict[str, Finding] = {}
        self.bad_files: set[str] = set()
        self.problems = 0
        self._kept = max(limit_shown, _KEPT)

    def add(self, kind: str, file: Path | str, detail: str = '', remedy: str = '') -> None:
        """Count one finding of a kind in ``KINDS`` at ``file``, relative to the root, and a remedy of its own."""
        found = self.findings.setdefault(kind, Finding())
        found.count += 1
        remedy = remedy or KINDS[kind][2]
        if remedy not in found.remedies and len(found.remedies) < _REMEDIES:
            found.remedies.append(remedy)
        if len(found.examples) < self._kept:
            found.examples.append((str(file), detail))
        if KINDS[kind][0] == PROBLEM:
            self.problems += 1
            self.bad_files.add(str(file))

    def verdict(self) -> str:
        """The last line."""
        if not self.problems:
            return f'{self.root}: fine'
        return f'{self.root}: {_number(self.problems, "problem")} in {_number(len(self.bad_files), "file")}'

    def print(self, limit_shown: int) -> None:
        """Print the report, with up to ``limit_shown`` examples a kind."""
        print(
            f'{printable(self.root)}, {"COCO layout" if self.layout == "coco" else "one folder a class"}'
            + ('' if self.decoded else ', headers of images only: contents neither decoded nor compared')
        )
        self._print_counts()
        for kind, (severity, title, _) in KINDS.items():
            if kind in self.findings:
                found = self.findings[kind]
                print(f'\n{severity}: {found.count:,} {title}')
                for file, detail in found.examples[:limit_shown]:
                    print(printable(f'  {file}: {detail}' if detail else f'  {file}'))
                if found.count > limit_shown:
                    print(f'  … and {found.count - limit_shown:,} more')
                print(f'  remedy: {found.remedy}')
        print(f'\n{printable(self.verdict())}')

    def _print_counts(self):
        rows = [['split', *next(iter(self.splits.values()), {})]]
        rows += [[name, *(f'{value:,}' for value in counts.values())] for name, counts in self.splits.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, *counts in rows:
            cells = [text.rjust(width) for text, width in zip(counts, widths[1:], strict=True)]
            print('  '.join([name.ljust(widths[0]), *cells]).rstrip())

    def to_json(self) -> bytes:
        """The report as JSON, in bytes."""
        findings = [
            {
                'kind': kind,
                'severity': severity,
                'title': title,
                'remedy': self.findings[kind].remedy,
                'count': self.findings[kind].count,
                'examples': [{'file': file, 'detail': detail} for file, detail in self.findings[kind].examples],
            }
            for kind, (severity, title, _) in KINDS.items()
            if kind in self.findings
        ]
        return (
            json.dumps(
                {
                    'root': str(self.root),
                    'layout': self.layout,
                    'decoded': self.decoded,
                    'fine': not self.problems,
                    'problems': self.problems,
                    'files': len(self.bad_files),
                    'splits': self.splits,
                    'findings': findings,
                },
                indent=1,
            )
            + '\n'
        ).encode()


def _number(count, noun):
    return f'{count:,} {noun}{"" if count == 1 else "s"}'
