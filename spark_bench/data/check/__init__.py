"""Is a folder in COCO or ImageNet layout whole and sound?

``coco`` and ``classes`` know one layout each, ``shapes`` looks at one annotation, ``looking`` opens the pictures,
``duplicates`` compares them, ``report`` collects what was found and prints it.
"""

import os
from importlib import import_module
from pathlib import Path

from spark_bench.data.check.duplicates import report_duplicates
from spark_bench.data.check.looking import Progress
from spark_bench.data.check.report import Report
from spark_bench.errors import InputError

__all__ = ['check']

_LAYOUTS = {'coco': 'coco', 'imagenet': 'classes'}
_EXPECTED = 'annotations/instances_{train,val}*.json beside the folders of pictures, or train/<class>/ and val/<class>/'


def check(root, layout=None, workers=None, decode=True, limit_shown=5):
    """Check a data set.

    Args:
        root: folder.
        layout: ``coco`` or ``imagenet``; None to find out.
        workers: processes that open pictures; None for one a CPU core.
        decode: decode every picture and compare their contents; otherwise their headers alone are read.
        limit_shown: examples a kind of problem that will be shown.

    Returns:
        :class:`~spark_bench.data.check.report.Report`.

    Raises:
        InputError: where ``root`` has neither layout.
    """
    root = Path(root)
    layout = layout or _find_layout(root)
    _demand(root, layout)
    report = Report(root, layout, decode, limit_shown)
    workers = workers or len(os.sched_getaffinity(0))
    digests = _layout(layout).check_folder(report, decode, workers, Progress())
    if decode:
        report_duplicates(report, digests)
    return report


def _layout(name):
    # These import the judge of annotations, which reports by this package's kinds.
    return import_module(f'spark_bench.data.check.{_LAYOUTS[name]}')


def _find_layout(root):
    for layout in _LAYOUTS:
        if _layout(layout).fits(root):
            return layout
    if not root.is_dir():
        raise InputError(f'{root} is not a folder: give one with {_EXPECTED}')
    raise InputError(f'{root} has neither layout: expected {_EXPECTED}')


def _demand(root, layout):
    if not root.is_dir():
        raise InputError(f'{root} is not a folder: give one with {_EXPECTED}')
    if not _layout(layout).fits(root):
        raise InputError(f'{root} is not in {layout} layout: expected {_layout(layout).EXPECTED}')
