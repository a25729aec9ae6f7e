"""check what is installed and whether it works"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spark_bench.commands.parsing import Namespace, Parser
from spark_bench.places import cache_folder

SETUP = 'run `make setup`'
REINSTALL = 'run .venv/bin/pip install --force-reinstall --no-deps '
# Without compiled operators: torchvision's stand in for them, on any GPU.
OPERATORS = REINSTALL + '--no-binary onedl-mmcv onedl-mmcv'
# Import name and distribution name of what a run cannot do without.
PACKAGES = (
    ('torch', 'torch'),
    ('torchvision', 'torchvision'),
    ('timm', 'timm'),
    ('mmengine', 'onedl-mmengine'),
    ('mmcv', 'onedl-mmcv'),
    ('mmdet', 'onedl-mmdetection'),
    ('mmpretrain', 'onedl-mmpretrain'),
    ('pycocotools', 'pycocotools'),
    ('hotcoco', 'hotcoco'),
    ('cv2', 'opencv-python-headless'),
    ('numpy', 'numpy'),
    ('scipy', 'scipy'),
    ('skimage', 'scikit-image'),
    ('sklearn', 'scikit-learn'),
    ('matplotlib', 'matplotlib'),
    ('PIL', 'Pillow'),
    ('safetensors', 'safetensors'),
    ('tensorboard', 'tensorboard'),
    ('jsonschema', 'jsonschema'),
    ('jinja2', 'jinja2'),
    ('rich', 'rich'),
    ('packaging', 'packaging'),
    ('filelock', 'filelock'),
    ('submitit', 'submitit'),
    ('setuptools', 'setuptools'),
)
# The small-scale demo needs about this much; records and checkpoints of a full sweep need far more.
FREE_DISK_GB = 2.0
MEMORY_GB = 4.0


@dataclass(frozen=True)
class Check:
    """One row of the report: what was looked at, whether it is well, what was found; the remedy if not."""

    name: str
    ok: bool
    detail: str
    remedy: str = ''


class _Unwell(Exception):
    """A check found something wrong that raised nothing by itself. The message says what was found."""


def run_checks() -> list[Check]:
    """Run every check. Returns one row a check, in the order of the report; nothing is raised."""
    return [
        _check('python', _python, 'run `make setup PYTHON=python3.12`'),
        *(_check(distribution, partial(_package, module, distribution), SETUP) for module, distribution in PACKAGES),
        _check('processor', _processor, ''),
        _check('memory', _memory, f'free or add memory: {MEMORY_GB:.0f} GB are needed'),
        _check('GPU', _gpu, SETUP),
        _check("mmcv's operators on the CPU", partial(_operators, 'cpu'), OPERATORS),
        *([_check("mmcv's operators on the GPU", partial(_operators, 'cuda'), OPERATORS)] if _has_cuda() else ()),
        _check('COCO masks', _coco_masks, REINSTALL + 'pycocotools'),
        _check('DejaVu font', _font, REINSTALL + 'matplotlib'),
        _check('sample photographs', _photographs, REINSTALL + 'scikit-image scikit-learn'),
        _check(
            'disk of the cache',
            lambda: _disk(cache_folder()),
            'free some space, or set SPARK_BENCH_CACHE to a folder on another disk',
        ),
        _check('disk of this folder', lambda: _disk(Path.cwd()), 'free some space, or give --work-dir on another disk'),
    ]


def add_options(parser: Parser) -> None:
    """There are none."""


def main(args: Namespace) -> int:
    """Print the report as a table, with a remedy for what does not work. Returns 0 if every check passed, else 1."""
    checks = run_checks()
    try:
        _print_table(checks)
    except ImportError:
        for check in checks:
            print('ok  ' if check.ok else 'FAIL', check.name, check.detail, check.remedy, sep='  ')
    return 0 if all(check.ok for check in checks) else 1


def _print_table(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title='spark-bench doctor')
    for title in ('', 'check', 'found', 'remedy'):
        table.add_column(title, overflow='fold')
    for check in checks:
        verdict = Text('ok', style='green') if check.ok else Text('FAIL', style='bold red')
        table.add_row(verdict, Text(check.name), Text(check.detail), Text(check.remedy))
    console = Console()
    console.print(table)
    failed = sum(not check.ok for check in checks)
    total = len(checks)
    console.print(f'{failed} of {total} checks failed' if failed else f'all {total} checks passed')


def _check(name: str, probe: Callable[[], str], remedy: str) -> Check:
    """Run one probe, which returns what it found; whatever a broken package raises makes a failed row."""
    try:
        return Check(name, True, probe())
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines() or ['']
        detail = lines[0] if isinstance(error, _Unwell) else f'{type(error).__name__}: {lines[0]}'
        return Check(name, False, detail, remedy)


def _python() -> str:
    found = f'{platform.python_version()} at {sys.executable}'
    if not (3, 10) <= sys.version_info[:2] <= (3, 14):
        raise _Unwell(f'{found}; 3.10 to 3.14 is supported')
    return found


def _package(module: str, distribution: str) -> str:
    """Version of the distribution, if its module imports and it lies in the range spark-bench asks for."""
    from importlib.metadata import version

    from packaging.specifiers import SpecifierSet

    importlib.import_module(module)
    found = version(distribution)
    wanted = _wanted_versions().get(distribution.lower(), '')
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        raise _Unwell(f'{found} is installed, {wanted} is needed')
    return found


def _wanted_versions() -> dict[str, str]:
    """Version ranges in spark-bench's metadata, by distribution; empty when it is not installed."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in requires('spark-bench') or []]
    except PackageNotFoundError:
        return {}
    wanted: dict[str, str] = {}
    for item in requirements:
        if item.marker is None or item.marker.evaluate({'extra': ''}):
            wanted[item.name.lower()] = ','.join(filter(None, [wanted.get(item.name.lower()), str(item.specifier)]))
    return wanted


def _processor() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith('model name')]
        model = names[0].split(':', 1)[1].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    told = f'{model}, {cores} cores usable'
    try:
        from spark_bench.devices import imitates_bfloat16

        return f'{told}; no instructions for bfloat16: --amp is slow on it' if imitates_bfloat16('cpu') else told
    except (ImportError, OSError):  # the row of torch itself says what is wrong with it
        return told


def _memory() -> str:
    gigabytes = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9
    if gigabytes < MEMORY_GB:
        raise _Unwell(f'{gigabytes:.1f} GB')
    return f'{gigabytes:.1f} GB'


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return 'none: everything runs on the CPU'
    from pretrain.toolchain import missing_for_gpus

    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    told, missing = [f'{device.name} ({device.total_memory / 1e9:.0f} GB)' for device in devices], missing_for_gpus()
    if missing is not None:
        told.append(f'depthwise convolutions of visible patches are several times slower than they could be: {missing}')
    return ', '.join(told)


def _has_cuda() -> bool:
    try:
        import torch

        return torch.cuda.is_available()
    except Exception:  # the row of torch itself says what is wrong with it
        return False


def _operators(device: str) -> str:
    """Whose operators they are; run RoIAlign and NMS on inputs whose results can be worked out by hand."""
    import torch
    from mmcv.ops import nms, roi_align

    from spark_bench import operators

    # Bilinear sampling reproduces the ramp 10·y + x, and a bin's mean is the ramp at the bin's centre. A box
    # from (2, 3) to (8, 11), shifted by half a pixel (aligned), has bin centres x = 3, 6 and y = 4.5, 8.5.
    ramp_11HW = (10.0 * torch.arange(16.0)[:, None] + torch.arange(16.0)[None, :])[None, None].to(device)
    box_R5 = torch.tensor([[0.0, 2.0, 3.0, 8.0, 11.0]], device=device)
    pooled = roi_align(ramp_11HW, box_R5, (2, 2), 1.0, 2, 'avg', True).cpu()
    if not torch.allclose(pooled.flatten(), torch.tensor([48.0, 51.0, 88.0, 91.0]), atol=1e-3):
        raise _Unwell(f'RoIAlign gives {pooled.flatten().tolist()} where 48, 51, 88, 91 are right')

    # The first two overlap with IoU 81 / 119, above the threshold; the third stands alone.
    boxes_N4 = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [1, 1, 11, 11]], device=device)
    kept = nms(boxes_N4, torch.tensor([0.8, 0.7, 0.9], device=device), 0.5)[1].tolist()
    if kept != [2, 1]:
        raise _Unwell(f'NMS keeps boxes {kept} where 2, 1 are right')
    whose = 'compiled with mmcv' if operators.are_compiled() else "torchvision's"
    return f'{whose}; RoIAlign and NMS give the right values'


def _coco_masks() -> str:
    import numpy as np
    from pycocotools import mask as coco_mask

    drawn_HW = np.zeros((12, 9), dtype=np.uint8, order='F')
    drawn_HW[2:7, 3:8] = 1
    encoded = coco_mask.encode(drawn_HW)
    area, decoded_HW = int(coco_mask.area(encoded)), coco_mask.decode(encoded)
    if area != 25 or not np.array_equal(decoded_HW, drawn_HW):
        raise _Unwell(f'a square of 25 pixels comes back with area {area} or in another shape')
    return 'a mask survives encoding and decoding'


def _font() -> str:
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ' '.join(ImageFont.truetype(str(path), 16).getname())


def _photographs() -> str:
    import skimage
    import sklearn.datasets
    from PIL import Image

    folders = [
        (Path(skimage.__file__).parent / 'data', ('astronaut.png', 'chelsea.png', 'coffee.png')),
        (Path(sklearn.datasets.__file__).parent / 'images', ('china.jpg', 'flower.jpg')),
    ]
    paths = [folder / name for folder, names in folders for name in names]
    for path in paths:
        with Image.open(path) as image:
            image.load()
    return f'{len(paths)} of {len(paths)} can be read'


def _disk(folder: Path) -> str:
    # The cache may not have been made yet; the disk it will lie on is that of its nearest parent.
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise _Unwell(f'{existing} cannot be written')
    if free < FREE_DISK_GB:
        raise _Unwell(f'{free:.1f} GB free at {existing}, {FREE_DISK_GB:.0f} GB are needed')
    return f'{free:.1f} GB free at {existing}'
