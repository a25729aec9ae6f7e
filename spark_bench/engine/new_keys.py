"""Keys that ``overrides`` add to a config: whether what reads them there knows such a key."""

import difflib
import inspect

import mmengine.registry
from mmengine.registry import Registry
from torch.utils.data import DataLoader

from spark_bench.errors import InputError

# What builders take out of a dict before its class sees the rest.
_FOR_BUILDERS = {'type', '_scope_', 'constructor', 'paramwise_cfg', 'by_epoch', 'convert_to_iter_based', 'init_cfg',
                 'worker_init_fn', 'num_batch_per_epoch', 'sampler', 'batch_sampler', 'dataset', 'optimizer'}
_LIKE = 0.8  # from here on one key is taken for a slip of another


def check_new_key(cfg, key):
    """Refuse a dotted key that is not in a config and that nothing there takes.

    Args:
        cfg: config without the key, whose parent is there.
        key: as of ``--cfg-options``.

    Raises:
        InputError: naming the nearest key that is taken.
    """
    *parts, last = key.split('.')
    parent = cfg
    for part in parts:
        parent = parent[int(part)] if isinstance(parent, (list, tuple)) else parent.get(part, {})
    if not isinstance(parent, dict) or last in parent or last in _FOR_BUILDERS or not parts:
        return
    taken, complete = _parameters(DataLoader if parts[-1].endswith('_dataloader') else _class_of(parent))
    known = sorted({*taken, *parent} - _FOR_BUILDERS)
    close = difflib.get_close_matches(last, known, 1, _LIKE)
    if last not in taken and (complete or close):
        hint = f'did you mean {".".join([*parts, *close])}?' if close else f'it takes {", ".join(known)}'
        raise InputError(f'--cfg-options {key}: {".".join(parts)} takes no {last!r}; {hint}')


def _class_of(settings):
    """The class that a dict of a config builds, or None where none is known by that name."""
    name = str(settings.get('type', '')).rpartition('.')[2]
    registries = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
    registries += [child for registry in registries for child in registry.children.values()]
    return next((found for registry in registries if (found := registry.module_dict.get(name))), None)


def _parameters(built):
    """``(names, complete)`` of what a class or function takes; not complete where it may take more than it names."""
    names = set()
    for layer in inspect.getmro(built) if inspect.isclass(built) else [built]:
        maker = vars(layer).get('__init__') if inspect.isclass(layer) else layer
        if maker is None:
            continue
        try:
            parameters = inspect.signature(maker).parameters.values()
        except (TypeError, ValueError):
            return names, False
        names |= {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return names - {'self'}, layer is not object
    return names - {'self'}, False
