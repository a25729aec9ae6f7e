"""What compiling on the machine itself needs: torch.compile for CPUs, and what starts Triton's kernels on GPUs."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path


def missing_for_cpus() -> str | None:
    """What torch.compile lacks for CPUs, and where to get it; None where it lacks nothing."""
    return _missing_compiler('CXX', ('g++',), 'g++')


def missing_for_gpus() -> str | None:
    """Likewise what Triton's kernels lack: torch.compile's for GPUs, and this package's own."""
    if importlib.util.find_spec('triton') is None:
        return 'Triton, which makes kernels for GPUs, is not installed: pip install triton'
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a build from source may go by another name
        version = importlib.metadata.version('triton')
        if tuple(map(int, version.split('.')[:2])) < (3, 2):
            return f"Triton {version} is too old for these kernels: pip install 'torch>=2.6', which brings 3.2"
    return _missing_compiler('CC', ('gcc', 'clang'), 'gcc')


def _missing_compiler(variable, defaults, package):
    asked = os.environ.get(variable)
    compilers = (asked,) if asked else defaults
    if not any(map(shutil.which, compilers)):
        return f'there is no compiler {compilers[0]}: install one (apt install {package}) or name yours in {variable}'
    if not (Path(sysconfig.get_path('include')) / 'Python.h').is_file():
        return 'the headers of Python (Python.h) are not there: install them (apt install python3-dev)'
    return None
