"""Is a folder in COCO or ImageNet layout whole and sound?

``coco`` and ``classes`` know one layout each, ``shapes`` looks at one annotation, ``images`` opens the images,
``duplicates`` compares them, ``report`` collects what was found and prints it.
"""

from pathlib import Path

from spark_bench.data.check import classes, coco
from spark_bench.data.check.duplicates import report_duplicates
from spark_bench.data.check.report import Report
from spark_bench.errors import InputError
from spark_bench.records.environment import usable_cores

_LAYOUTS = {'coco': coco, 'imagenet': classes}
_EXPECTED = 'annotations/instances_{train,val}*.json beside the folders of images, or train/<class>/ and val/<class>/'


def check(
    root: Path | str, layout: str | None = None, workers: int | None = None, decode: bool = True, limit_shown: int = 5
) -> Report:
    """Check a data set.

    Args:
        layout: ``coco`` or ``imagenet``; None to find out.
        workers: processes that open images; None for one a CPU core.
        decode: decode every image and compare their contents; otherwise their headers alone are read.
        limit_shown: examples a kind of problem that will be shown.

    Raises:
        InputError: where ``root`` has neither layout.
    """
    root = Path(root)
    layout = _find_layout(root, layout)
    report = Report(root, layout, decode, limit_shown)
    report_duplicates(report, _LAYOUTS[layout].check_folder(report, workers or usable_cores()))
    return report


def _find_layout(root, asked):
    if not root.is_dir():
        raise InputError(f'{root} is not a folder: give one with {_EXPECTED}')
    found = [name for name, layout in _LAYOUTS.items() if layout.fits(root)]
    if asked and asked not in found:
        raise InputError(f'{root} is not in {asked} layout: expected {_LAYOUTS[asked].EXPECTED}')
    if not found:
        raise InputError(f'{root} has neither layout: expected {_EXPECTED}')
    return asked or found[0]
