"""Where a run took place: revision of the code, versions, hardware."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

# OpenMMLab's packages go by two names on the index, the project's own and its continuation's.
DISTRIBUTIONS = (
    'torch',
    'torchvision',
    'timm',
    'numpy',
    'scipy',
    'mmengine',
    'onedl-mmengine',
    'mmcv',
    'onedl-mmcv',
    'mmdet',
    'onedl-mmdetection',
    'mmpretrain',
    'onedl-mmpretrain',
    'pycocotools',
    'opencv-python-headless',
    'opencv-python',
    'pillow',
    'scikit-image',
    'scikit-learn',
    'matplotlib',
    'spark-bench',
)


def collect_environment() -> dict[str, Any]:
    """The environment of this process, as ``Record.environment`` holds it.

    ``git_revision`` and ``git_dirty`` are of the checkout that holds this package, None outside one; results do not
    count as changes. ``cores`` are those this process may use, ``memory_gb`` the machine's, in GiB. torch is only asked
    for threads and GPU if the process has imported it already.
    """
    revision, dirty = _git_state(Path(__file__).resolve())
    torch = sys.modules.get('torch')
    cores = usable_cores()
    versions = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        'git_revision': revision,
        'git_dirty': dirty,
        'python': platform.python_version(),
        'platform': platform.platform(),
        'cpu': _cpu_name(),
        'cores': cores,
        'threads': torch.get_num_threads() if torch else cores,
        'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30, 1),
        'gpu': torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        'packages': versions,
    }


def usable_cores() -> int:
    """The cores that this process may use: what a container or a batch system grants."""
    # The affinity is absent outside Linux.
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _git_state(file: Path) -> tuple[str | None, bool | None]:
    # A package installed into some other project's folder must not be given that project's revision.
    if _git(file.parent, 'ls-files', '--error-unmatch', file.name) is None:
        return None, None
    revision = _git(file.parent, 'rev-parse', 'HEAD')
    top = _git(file.parent, 'rev-parse', '--show-toplevel')
    changes = _git(Path(top), 'status', '--porcelain', '--', '.', ':(exclude)results') if top else None
    return revision, None if revision is None or changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None if it fails or is absent."""
    # Inside a git hook, GIT_DIR and its like point at whichever repository runs the hook.
    environment = {key: value for key, value in os.environ.items() if not key.startswith('GIT_')}
    try:
        answer = subprocess.run(
            ['git', '-C', str(folder), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return (names[0] if names else '') or platform.processor() or platform.machine() or 'unknown'
