"""Load a checkpoint into a network, and report what became of each tensor."""

import os
import pickle
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from spark_bench.errors import InputError

_CONTAINERS = ('state_dict', 'model', 'module', 'state_dict_ema')


@dataclass(frozen=True)
class Coverage:
    """What became of each tensor when a checkpoint was loaded.

    Attributes:
        path: the file.
        loaded: names of the model's tensors that were filled.
        unused: names in the file of a classifier that the model does not have.
    """

    path: str
    loaded: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self):
        text = f'{len(self.loaded)} tensors loaded from {self.path}, every tensor of the network filled'
        return f'{text}; classifier left out: {", ".join(self.unused)}' if self.unused else text


def load(model, path):
    """Fill every parameter and buffer of a timm network from a checkpoint.

    Args:
        model: timm network, with or without classifier.
        path: ``.safetensors``, or a ``.pth`` written by torch: timm's names, at the top level or under
            ``state_dict``, ``model`` or ``module``.

    Returns:
        :class:`Coverage`.

    Raises:
        InputError: where the file cannot be read, or any tensor of the model or of the file stays
            unaccounted for (a classifier that the model does not have may be left out). The model is
            not touched then.
    """
    tensors = read_tensors(path)
    wanted = model.state_dict()
    optional = _classifier_prefixes(model)
    extra = sorted(set(tensors) - set(wanted))
    unused = [name for name in extra if name.startswith(optional)]
    problems = _problems('missing from the file', sorted(set(wanted) - set(tensors)))
    problems += _problems('unknown to the network', [name for name in extra if name not in unused])
    problems += _problems('of another shape', [
        f'{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}'
        for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape])
    problems += _problems('not finite', [
        name for name in wanted if name in tensors and not torch.isfinite(tensors[name]).all()])
    if problems:
        raise InputError(f'{path} does not fit {type(model).__name__}: {"; ".join(problems)}. Give the checkpoint '
                         'of the same architecture, in timm names')
    model.load_state_dict({name: tensors[name] for name in wanted}, strict=True)
    return Coverage(str(path), tuple(wanted), tuple(unused))


def read_tensors(path):
    """Read a checkpoint into a dict from name to tensor, on the CPU, without unpickling any object.

    Raises:
        InputError: one line naming the file, for a file that is absent, cut short, not a checkpoint, or
            that would run code when unpickled.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'no checkpoint at {path}: give the path of a .safetensors or .pth file')
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    try:
        contents = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f'{path} holds more than tensors, or is damaged; it was not unpickled: copy it again, or '
                         'save its state_dict alone with safetensors.torch.save_file') from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, MemoryError,
            UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise InputError(f'{path} is not a readable checkpoint ({type(error).__name__}): copy it again') from error
    return _unwrap(contents, path)


def _read_safetensors(path):
    with _open_safetensors(path) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}


def read_metadata(path):
    """The header that :func:`save` wrote, a dict of strings; empty for any other file."""
    if Path(path).suffix != '.safetensors':
        return {}
    with _open_safetensors(path) as file:
        return file.metadata() or {}


def _open_safetensors(path):
    try:
        return safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        raise InputError(f'{path} is not a complete safetensors file ({error}): copy it again') from error


def _unwrap(contents, path):
    while isinstance(contents, dict) and not any(torch.is_tensor(value) for value in contents.values()):
        inner = next((contents[key] for key in _CONTAINERS if isinstance(contents.get(key), dict)), None)
        if inner is None:
            break
        contents = inner
    if not isinstance(contents, dict) or not contents:
        raise InputError(f'{path} holds no tensors: expected a state_dict')
    stray = [str(name) for name, value in contents.items() if not torch.is_tensor(value)]
    if stray:
        raise InputError(f'{path}: {stray[0]!r} is not a tensor: expected a state_dict')
    prefix = 'module.'
    if all(name.startswith(prefix) for name in contents):
        contents = {name[len(prefix):]: value for name, value in contents.items()}
    return contents


def _problems(what, names):
    if not names:
        return []
    shown = ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
    return [f'{len(names)} tensors {what} ({shown})']


def _classifier_prefixes(model):
    config = getattr(model, 'pretrained_cfg', None) or {}
    names = config.get('classifier') or 'fc'
    names = (names,) if isinstance(names, str) else tuple(names)
    # The norm before a ConvNeXt's classifier belongs to its head.
    return tuple(f'{name}.' for name in names) + ('head.',)


def save(model, path, metadata):
    """Write the weights of ``model`` as safetensors, atomically.

    Args:
        model: any module.
        path: file to write.
        metadata: dict of strings kept in the file's header.
    """
    path = Path(path)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    os.close(handle)
    try:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, partial, metadata)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
