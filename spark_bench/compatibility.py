"""What OpenMMLab's packages need in order to be imported beside newer versions of others."""

import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path


def leave_out_multimodal() -> None:
    """Keep mmpretrain from importing its multimodal models where transformers is 5 or newer.

    mmpretrain takes any version for one that it knows, and then does not import at all; nothing here uses those models.
    To be called before mmpretrain is imported.
    """
    name = 'mmpretrain.utils.dependency'
    try:
        if int(version('transformers').split('.')[0]) < 5 or name in sys.modules:
            return
    except (PackageNotFoundError, ValueError):
        return
    package = find_spec('mmpretrain')
    if package is None:
        return
    spec = spec_from_file_location(name, Path(package.origin).parent / 'utils' / 'dependency.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.WITH_MULTIMODAL = False  # type: ignore[attr-defined]  # its own, which no stub of modules knows
    sys.modules[name] = module


def hide_torchscript_notice() -> None:
    """Keep torch 2.4 and 2.5 from warning of a part of theirs that mmengine imports and nothing here uses.

    They print it whatever Python's warning filters say. To be called before mmengine is imported.
    """
    import torch

    if torch.distributed.is_available():
        with warnings.catch_warnings(record=True):
            import torch.distributed.optim  # noqa: F401


def hide_evaluation_notice() -> None:
    """Keep mmdet from telling in every run that metrics are not computed: of a package that nothing here uses.

    To be called before mmdet's metrics are imported.
    """
    warnings.filterwarnings('ignore', 'faster_coco_eval is not installed')


def find_base_configs_at_once() -> None:
    """Keep mmengine from reading a package's hundred model cards for each ``mmdet::_base_/…``, which none lists.

    It looks there first, for a third of a second, and then where base configs are.
    """
    from mmengine.config import config

    found = getattr(config, '_get_external_cfg_path', None)
    if found is None or found.__module__ == __name__:
        return

    def find(package_path: str, name: str) -> str:
        if name.startswith('_base_/'):
            raise ValueError(f'{name} is a base')  # mmengine's word for: look where bases are
        return found(package_path, name)

    config._get_external_cfg_path = find
