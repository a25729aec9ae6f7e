"""mmcv's compiled operators, answered for by torchvision where mmcv has none of its own.

mmcv compiles its operators when it is installed: a quarter of an hour, a C++ compiler, and nvcc for a GPU. torchvision
ships those that detectors need in its wheel, for CPU and CUDA. Importing ``spark_bench`` puts a finder at the end of
Python's list, so that a compiled ``mmcv._ext`` always wins.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from spark_bench.errors import InputError

EXTENSION = 'mmcv._ext'
STAND_IN = Path(__file__).with_name('stand_in.py')
COMPILE = (
    'pip install ninja setuptools wheel && pip install --no-build-isolation --no-deps --force-reinstall '
    '--no-binary onedl-mmcv onedl-mmcv'
)


class MissingOperator(InputError):
    """A model calls an operator that comes with a compiled mmcv alone, and this mmcv was installed without."""

    def __init__(self, name: str):
        super().__init__(
            f"mmcv's operator {name} comes with a compiled mmcv alone: take a model that does without, or "
            f'compile mmcv (a C++ compiler; for a GPU, nvcc too): {COMPILE}'
        )


class OperatorFinder(MetaPathFinder):
    """Finds ``mmcv._ext`` in :mod:`spark_bench.operators.stand_in`, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_file_location(EXTENSION, STAND_IN) if fullname == EXTENSION else None


def install() -> None:
    """Answer for ``mmcv._ext`` from now on, where nothing else does; once is enough."""
    if any(isinstance(finder, OperatorFinder) for finder in sys.meta_path):
        return
    sys.meta_path.append(OperatorFinder())
    if 'mmdet' in sys.modules and EXTENSION not in sys.modules:
        _replace_placeholders()


def _replace_placeholders():
    """Give mmcv's operators to modules of mmdet that were imported before, found none, and made do with an error."""
    import mmcv.ops

    modules = [module for name, module in sys.modules.items() if name.startswith('mmdet.')]
    for module in modules:
        for name, value in list(vars(module).items()):
            code = getattr(value, '__code__', None) or getattr(getattr(value, '__init__', None), '__code__', None)
            if code and any('mmcv to be compiled with ops' in str(constant) for constant in code.co_consts):
                setattr(module, name, getattr(mmcv.ops, name.lstrip('_')))


def are_compiled() -> bool:
    """Whether mmcv's operators are its own, compiled ones. Raises ImportError where those are broken."""
    import mmcv.ops  # noqa: F401

    return Path(sys.modules[EXTENSION].__file__) != STAND_IN
