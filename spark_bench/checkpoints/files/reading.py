"""Reading a file of weights without running anything in it, however broken it is."""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from spark_bench.checkpoints.files.foreign import SHARDED, explain
from spark_bench.checkpoints.files.pickles import LEGACY, as_tensor, read_arrays, read_torch
from spark_bench.errors import InputError, printable

# Keys under which training codes keep a state_dict, in the order of preference. The rest of the file is left out.
CONTAINERS = (
    'state_dict',
    'model',
    'module',
    'state_dict_ema',
    'model_ema',
    'ema_state_dict',
    'model_state',
    'model_state_dict',
    'blobs',
)
# Real checkpoints nest at most three deep (model → module → state_dict).
_DEEPEST = 4
# Before all names, by data parallel training and torch.compile; and anywhere in them, by what wraps single modules.
_OUTER = ('module.', '_orig_mod.', 'module.')
_INNER = ('_fsdp_wrapped_module.', '_checkpoint_wrapped_module.', '_fpw_module.', '_forward_module.', '_orig_mod.')
# Text that training codes keep beside their weights is a word, not a whole config or log.
_LONGEST_TEXT = 1000


@dataclass(frozen=True)
class CheckpointFile:
    """What a file holds.

    Attributes:
        path: the file.
        container: how it is written: ``safetensors``, ``torch zip``, ``torch legacy`` or ``pickle``.
        tensors: from name to tensor, on the CPU, as they stand in the file; wrappers are taken out of the names.
        metadata: strings and numbers beside the tensors, such as ``arch`` and ``epoch``.
        left_out: names of the other entries, such as ``optimizer``.
        key_prefix: what the names of the network that was asked for begin with; None where none was.
    """

    path: str
    container: str
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    key_prefix: str | None = None


def read_file(path: Path | str, key_prefix: str | None = None) -> CheckpointFile:
    """Read a checkpoint.

    Args:
        path: the file.
        key_prefix: what the names of one of several networks begin with. Of a file that keeps each network in a dict
            of its own, the key of that dict comes first: ``teacher.backbone.``, ``model_ema.``.

    Returns:
        :class:`CheckpointFile`.

    Raises:
        InputError: one line naming the file, for a file that is absent, cut short, not a checkpoint, that
            would run code when unpickled, or that holds anything but plain dense tensors.
    """
    path = Path(path)
    size = _size(path)
    try:
        kind = _kind(path, size)
        if kind == 'safetensors':
            with _open_safetensors(path) as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no dict
                file = CheckpointFile(str(path), kind, tensors, opened.metadata() or {}, key_prefix=key_prefix)
        else:
            contents = read_arrays(path, size) if kind == 'pickle' else read_torch(path, kind, size)
            file = _unwrap(path, kind, contents, key_prefix)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - torch's, zipfile's and pickle's parsers raise whatever garbage leads to
        raise InputError(f'{path} is not a readable checkpoint ({type(error).__name__}): copy it again') from error
    if not file.tensors:
        raise InputError(f'{path} holds no tensors: expected a state_dict')
    file = _without_wrappers(file)
    for name, tensor in file.tensors.items():
        _check_plain(path, name, tensor, size)
    return file


def read_tensors(path: Path | str) -> dict[str, torch.Tensor]:
    """Read a checkpoint into a dict from name to tensor, on the CPU, without unpickling any object.

    Prefixes that wrappers put before all names (``module.``, ``_orig_mod.``) or into them (FSDP, activation
    checkpointing) are removed.

    Raises:
        InputError: see :func:`read_file`.
    """
    return read_file(path).tensors


def read_metadata(path: Path | str) -> dict[str, str]:
    """What a file says of itself, a dict of strings: the header of a safetensors file, or the words and numbers that
    stand beside the weights in another one.

    Raises:
        InputError: see :func:`read_file`.
    """
    path = Path(path)
    if _kind(path, _size(path)) == 'safetensors':
        with _open_safetensors(path) as file:
            return file.metadata() or {}
    return {name: str(value) for name, value in read_file(path).metadata.items()}


def demand_utf8(path: Path) -> None:
    """Raise InputError for a name that libraries of weights cannot take."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f'{printable(path)}: this name is no UTF-8, as torch and safetensors ask for: rename it, or set '
            'LC_ALL=C.UTF-8'
        ) from error


def _size(path):
    demand_utf8(path)
    try:
        if path.is_dir() and (path / '.metadata').is_file():
            raise InputError(f'{path} {SHARDED}')
        if path.is_dir():
            raise InputError(f'{path} is a folder: give the path of a .safetensors or .pth file')
        if not path.is_file():
            raise InputError(f'no checkpoint at {path}: give the path of a .safetensors or .pth file')
        with open(path, 'rb'):
            return path.stat().st_size
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f'{path} cannot be read ({getattr(error, "strerror", None) or error}): check its permissions'
        ) from error


def _kind(path, size):
    """By content, not by suffix: people rename files. Raises InputError for what is no file of weights."""
    with open(path, 'rb') as file:
        head = file.read(len(LEGACY))
    reason = explain(path, size)
    if reason is not None:
        raise InputError(f'{path} {reason}')
    # Eight bytes of header length, of which the first may be those of a zip, then JSON.
    if head[8:9] == b'{':
        return 'safetensors'
    if head.startswith(b'PK'):
        return 'torch zip'
    if path.suffix == '.safetensors':
        return 'safetensors'
    return 'pickle' if head[:1] == b'\x80' and head != LEGACY else 'torch legacy'


def _open_safetensors(path):
    try:
        return safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise InputError(f'{path} is not a complete safetensors file ({reason}): copy it again') from error


def _unwrap(path, kind, contents, key_prefix):
    """Go down to the state_dict; what is passed on the way is metadata, or left out."""
    metadata, left_out = {}, []
    for _ in range(_DEEPEST):
        key = _next_key(contents, key_prefix)
        if key is None:
            break
        if key_prefix is not None and f'{key_prefix}.'.startswith(f'{key}.'):
            key_prefix = key_prefix[len(key) + 1 :]
        others = {name: value for name, value in contents.items() if isinstance(name, str) and name != key}
        metadata |= _words(others)
        left_out += [name for name, value in others.items() if not isinstance(value, (str, int, float, type(None)))]
        metadata.update(_of_openmmlab(others.get('meta')))
        contents = contents[key]
    if isinstance(contents, dict) and not any('.' in str(name) for name in contents if _is_tensor(contents[name])):
        contents, others = _side_by_side(contents)
        metadata |= _words(others)
        left_out += [name for name, value in others.items() if not isinstance(value, (str, int, float, type(None)))]
    tensors, config = _state_dict(path, contents)
    return CheckpointFile(str(path), kind, tensors, metadata | _words(config), tuple(left_out), key_prefix)


def _next_key(contents, key_prefix):
    """The key of the dict to go down to: the one that was asked for, else a usual one; None at the end."""
    if not isinstance(contents, dict):
        return None
    dicts = [key for key, value in contents.items() if isinstance(key, str) and _holds_tensors(value)]
    asked = [key for key in dicts if key_prefix is not None and f'{key_prefix}.'.startswith(f'{key}.')]
    return max(asked, key=len, default=None) or next((key for key in CONTAINERS if key in dicts), None)


def _is_tensor(value):
    return as_tensor(value) is not None


def _holds_tensors(value, depth=0):
    """Whether a value is a dict with tensors in it, at any depth."""
    return isinstance(value, dict) and any(
        _is_tensor(child) or depth < _DEEPEST and _holds_tensors(child, depth + 1) for child in value.values()
    )


def _words(entries):
    """The strings and numbers of a dict, and those of mmengine's ``meta`` in it."""
    inner = entries.get('meta')
    return {
        name: value
        for name, value in {**(inner if isinstance(inner, dict) else {}), **entries}.items()
        if isinstance(name, str)
        and isinstance(value, (str, int, float))
        and (len(str(value)) <= _LONGEST_TEXT or name == 'classes')  # of any number
    }


def _side_by_side(contents):
    """``(tensors, others)`` of a dict that keeps networks in dicts of their own, as DINO does, at any depth."""
    networks = dict(_networks(contents, set()))
    if not networks:
        return contents, {}
    tensors = {
        f'{path}.{name}': tensor
        for path, network in networks.items()
        for name, tensor in network.items()
        if isinstance(name, str) and as_tensor(tensor) is not None
    }
    tops = tuple(path.partition('.')[0] for path in networks)
    return tensors, {key: value for key, value in contents.items() if isinstance(key, str) and key not in tops}


def _networks(contents, seen, path=''):
    """``(path, dict)`` of all dicts with tensors of modules, whose names have dots."""
    for key, value in contents.items():
        if not isinstance(key, str) or not isinstance(value, dict) or id(value) in seen:
            continue
        seen.add(id(value))
        if any(
            isinstance(name, str) and '.' in name and as_tensor(tensor) is not None for name, tensor in value.items()
        ):
            yield path + key, value
        elif path.count('.') < _DEEPEST:
            yield from _networks(value, seen, f'{path}{key}.')


def _of_openmmlab(meta):
    """What OpenMMLab's codes keep beside weights: ``classes`` of a trained model, ``pixel_mean`` and ``pixel_std`` of
    its images, as JSON; ``style`` of a ResNet."""
    meta = meta if isinstance(meta, dict) else {}
    config = next((meta[key] for key in ('cfg', 'config') if isinstance(meta.get(key), str)), '')
    said = _class_names(meta)
    if re.search(r"""style\s*=\s*['"]caffe""", config):
        said['style'] = 'caffe'
    for name in ('mean', 'std'):
        found = re.search(rf'\b{name} ?= ?[\[(]([^()\[\]]{{5,100}})', config)
        if found:
            said[f'pixel_{name}'] = f'[{found[1].strip().rstrip(",")}]'
    return said


def _class_names(meta):
    described = meta.get('dataset_meta')
    described = described if isinstance(described, dict) else {}
    for names in (described.get('classes'), described.get('CLASSES'), meta.get('CLASSES')):
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return {'classes': json.dumps(names)}
    return {}


def _state_dict(path, contents):
    """The tensors of a state_dict, and the ``config`` that SparK's authors keep among them."""
    tensors, config = {}, {}
    for name, value in contents.items() if isinstance(contents, dict) else ():
        if not isinstance(name, str):
            raise InputError(f'{path} has a key that is no string ({type(name).__name__}): expected a state_dict')
        tensor = as_tensor(value)
        if tensor is not None:
            tensors[name] = tensor
        elif name == 'config' and isinstance(value, dict):
            config = value
        else:
            raise InputError(f'{path}: {_shown(name)} is not a tensor: expected a state_dict')
    return tensors, config


def _without_wrappers(file):
    """The file with the networks' own names."""
    prefix = file.key_prefix
    renamed = {name: _without_inner(name) for name in file.tensors}
    prefix = prefix and _without_inner(f'{prefix.rstrip(".")}.')
    for outer in _OUTER:
        if all(name.startswith(outer) for name in renamed.values()):
            renamed = {name: new[len(outer) :] for name, new in renamed.items()}
            prefix = prefix and prefix.removeprefix(outer)
    tensors = {}
    for name, new in renamed.items():
        if new in tensors:
            raise InputError(f'{file.path} holds the tensor {_shown(new)} twice, once within a wrapper: remove one')
        tensors[new] = file.tensors[name]
    return replace(file, tensors=tensors, key_prefix=prefix)


def _without_inner(name):
    for wrapper in _INNER:
        name = name.replace(wrapper, '')
    return name


def _check_plain(path, name, tensor, size):
    if (
        tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.is_meta
        or tensor.is_complex()
        or type(tensor) not in (torch.Tensor, torch.nn.Parameter)
    ):
        raise InputError(
            f'{path}: {_shown(name)} is not a plain dense tensor (sparse, quantised, complex or without '
            'data): save the float weights'
        )
    if tensor.numel() * tensor.element_size() > size:
        raise InputError(
            f'{path}: {_shown(name)} of shape {tuple(tensor.shape)} is larger than the file: it is '
            'damaged, copy it again'
        )


def _shown(name):
    return repr(name[:80])
