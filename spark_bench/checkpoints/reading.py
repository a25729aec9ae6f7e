"""Reading a file of weights without running anything in it, however broken it is."""

import contextlib
import json
import mmap
import pickletools
import re
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from spark_bench.errors import InputError

# Keys under which training codes keep a state_dict, in the order of preference. The rest of the file is left out.
CONTAINERS = ('state_dict', 'model', 'module', 'state_dict_ema', 'model_ema', 'ema_state_dict', 'model_state',
              'model_state_dict')
# Real checkpoints nest at most three deep (model → module → state_dict).
_DEEPEST = 4
# No checkpoint has this many objects; reading more would take minutes.
_MOST_OPERATIONS = 5_000_000
_LONGEST_TUPLE_CHAIN = 1000

# What a file of plain tensors names. Everything else that torch would accept is a tensor that no network here can
# take (sparse, quantised, a subclass) or can ask for memory without bound (bytearray).
_PLAIN = re.compile(
    r'collections OrderedDict|torch (\w+Storage|u?int\d+|float\d\w*|bfloat16|bool|half|double|long|Size|device)|'
    r'torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\.storage \w+Storage|'
    r'torch\.serialization _get_layout|_codecs encode|(builtins|__builtin__) set')
# Metadata of known training codes. Read as inert objects: nothing is imported, nothing is called.
_INERT = re.compile(
    # mmengine's HistoryBuffer names its methods by getattr, which is not called either.
    r'argparse Namespace|(builtins|__builtin__) getattr|mmengine\.logging\.history_buffer HistoryBuffer|pathlib \w+|'
    r'numpy(\.\w+)* (_reconstruct|scalar|ndarray|dtype|_frombuffer)')
_INERT_DICT = re.compile(r'yacs\.config CfgNode|fvcore\.common\.config CfgNode|mmengine\.config\.config ConfigDict')


@dataclass(frozen=True)
class CheckpointFile:
    """What a file holds.

    Attributes:
        path: the file.
        container: how it is written: ``safetensors``, ``torch zip`` or ``torch legacy``.
        tensors: from name to tensor, on the CPU, as they stand in the file.
        metadata: strings and numbers beside the tensors, such as ``arch`` and ``epoch``.
        left_out: names of the other entries, such as ``optimizer``.
    """

    path: str
    container: str
    tensors: dict
    metadata: dict = field(default_factory=dict)
    left_out: tuple = ()


class _Inert:
    """Stands for an object of somebody's training code; keeps nothing of it."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


def read_file(path):
    """Read a checkpoint.

    Returns:
        :class:`CheckpointFile`.

    Raises:
        InputError: one line naming the file, for a file that is absent, cut short, not a checkpoint, that
            would run code when unpickled, or that holds anything but plain dense tensors.
    """
    path = Path(path)
    size = _size(path)
    try:
        kind = _kind(path)
        if kind == 'safetensors':
            tensors, metadata = _read_safetensors(path)
            file = CheckpointFile(str(path), kind, tensors, metadata)
        else:
            file = _unwrap(path, kind, _read_torch(path, kind, size))
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - torch's, zipfile's and pickle's parsers raise whatever garbage leads to
        raise InputError(f'{path} is not a readable checkpoint ({type(error).__name__}): copy it again') from error
    file = replace(file, tensors=_without_wrappers(file.tensors))
    for name, tensor in file.tensors.items():
        _check_plain(path, name, tensor, size)
    return file


def read_tensors(path):
    """Read a checkpoint into a dict from name to tensor, on the CPU, without unpickling any object.

    A prefix ``module.`` (or ``_orig_mod.``, torch.compile's) that all names share is removed.

    Raises:
        InputError: see :func:`read_file`.
    """
    return read_file(path).tensors


def read_metadata(path):
    """The header that :func:`save` wrote, a dict of strings; empty for any other file."""
    path = Path(path)
    if path.suffix != '.safetensors':
        return {}
    _size(path)
    with _open_safetensors(path) as file:
        return file.metadata() or {}


def _size(path):
    try:
        if path.is_dir():
            raise InputError(f'{path} is a folder: give the path of a .safetensors or .pth file')
        if not path.is_file():
            raise InputError(f'no checkpoint at {path}: give the path of a .safetensors or .pth file')
        with open(path, 'rb'):
            return path.stat().st_size
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{path} cannot be read ({getattr(error, "strerror", None) or error}): '
                         'check its permissions') from error


def _kind(path):
    """By content, not by suffix: people rename files."""
    with open(path, 'rb') as file:
        head = file.read(9)
    if head.startswith(b'PK'):
        return 'torch zip'
    # Eight bytes of header length, then JSON.
    if head[8:9] == b'{' or path.suffix == '.safetensors':
        return 'safetensors'
    return 'torch legacy'


def _read_safetensors(path):
    with _open_safetensors(path) as file:
        names = file.keys()
        if not names:
            raise InputError(f'{path} holds no tensors: expected a state_dict')
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def _open_safetensors(path):
    try:
        return safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise InputError(f'{path} is not a complete safetensors file ({reason}): copy it again') from error


def _read_torch(path, kind, size):
    """Look through the pickle first, then let torch read it with weights-only loading."""
    if kind == 'torch zip':
        with zipfile.ZipFile(path) as archive:
            _check_archive(path, archive, size)
            name = next(name for name in archive.namelist() if name.endswith('/data.pkl'))
            inert = _scan(path, archive.open(name), size, pickles=1)
    else:
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            # The old format: magic number, version, system, the object, names of the storages; then raw bytes.
            inert = _scan(path, stream, size, pickles=5)
    with _allowing(inert):
        # Mapped, so that an optimizer in the file costs no memory.
        return torch.load(path, map_location='cpu', weights_only=True, mmap=kind == 'torch zip')


@contextlib.contextmanager
def _allowing(classes):
    """Let weights-only loading make objects of these classes; torch 2.4 has no such context of its own."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(classes)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _check_archive(path, archive, size):
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if any('/code/' in name or name.endswith('/constants.pkl') for name in names):
        raise InputError(f'{path} is a TorchScript program, not weights: save its state_dict with torch.save')
    if sum(name.endswith('/data.pkl') for name in names) != 1:
        raise InputError(f'{path} is a zip archive but not a checkpoint of torch: give the .pth file itself')
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or \
            sum(entry.file_size for entry in entries) > size or len(set(names)) != len(names):
        raise InputError(f'{path} is not as torch writes it (compressed or overlapping entries): copy it again')
    sound = {name: _is_sound(archive, name) for name in names}
    # Some writers leave the checksums out altogether.
    if any(sound.values()) and not all(sound.values()):
        bad = next(name for name, good in sound.items() if not good)
        raise InputError(f'{path} is damaged (the checksum of its entry {bad} is wrong): copy it again')


def _is_sound(archive, name):
    try:
        with archive.open(name) as entry:
            while entry.read(1 << 20):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _scan(path, stream, size, pickles):
    """Check which globals the pickles name and how much they ask for; return stand-ins for the harmless ones."""
    inert = {}
    operations, chain, integer = 0, 0, 0
    for _ in range(pickles):
        for opcode, argument, _ in pickletools.genops(stream):
            operations += 1
            chain = chain + 1 if opcode.name.startswith('TUPLE') else 0 if opcode.name == 'REDUCE' else chain
            if operations > _MOST_OPERATIONS or chain > _LONGEST_TUPLE_CHAIN:
                raise InputError(f'{path} holds more than a checkpoint can (a pickle made to exhaust its reader)')
            if opcode.name in ('GLOBAL', 'STACK_GLOBAL', 'INST'):
                _allow(path, argument, inert)
            elif isinstance(argument, int) and opcode.name.startswith(('BININT', 'LONG', 'INT')) \
                    and 'GET' not in opcode.name and 'PUT' not in opcode.name:
                integer = argument
            elif opcode.name == 'BINPERSID' and not 0 <= integer <= size:
                raise InputError(f'{path} is damaged (it declares a storage of {integer} elements in {size} bytes)')
    # torch finds a class by its module and name.
    return [type(name.rpartition('.')[2], (base,), {'__module__': name.rpartition('.')[0]})
            for name, base in inert.items()]


def _allow(path, name, inert):
    name = name or 'an unnamed object'
    if _PLAIN.fullmatch(name):
        return
    # torch looks Python 2's names up under Python 3's.
    dotted = name.replace(' ', '.').replace('__builtin__.', 'builtins.')
    if _INERT.fullmatch(name):
        inert[dotted] = _Inert
    elif _INERT_DICT.fullmatch(name):
        inert[dotted] = OrderedDict
    else:
        shown = re.sub(r'[^\w.]', '?', dotted)[:80]
        raise InputError(f'{path} holds more than tensors ({shown}), or is damaged; it was not unpickled: copy it '
                         'again, or save its state_dict alone with safetensors.torch.save_file')


def _unwrap(path, kind, contents):
    metadata, left_out = {}, []
    for _ in range(_DEEPEST):
        if not isinstance(contents, dict):
            break
        key = next((key for key in CONTAINERS if isinstance(contents.get(key), dict) and contents[key]), None)
        if key is None:
            break
        others = {name: value for name, value in contents.items() if isinstance(name, str) and name != key}
        metadata.update({name: value for name, value in others.items() if isinstance(value, (str, int, float))})
        left_out += [name for name, value in others.items() if not isinstance(value, (str, int, float, type(None)))]
        metadata.update(_class_names(others.get('meta')))
        contents = contents[key]
    tensors, config = _state_dict(path, contents)
    metadata.update({name: value for name, value in config.items()
                     if isinstance(name, str) and isinstance(value, (str, int, float))})
    return CheckpointFile(str(path), kind, tensors, metadata, tuple(left_out))


def _class_names(meta):
    """``{'classes': JSON}``: where OpenMMLab's codes keep the names of a trained model's classes; or nothing."""
    meta = meta if isinstance(meta, dict) else {}
    described = meta.get('dataset_meta')
    described = described if isinstance(described, dict) else {}
    for names in (described.get('classes'), described.get('CLASSES'), meta.get('CLASSES')):
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return {'classes': json.dumps(names)}
    return {}


def _state_dict(path, contents):
    """The tensors of a state_dict, and the ``config`` that SparK's authors keep among them."""
    if not isinstance(contents, dict) or not contents:
        raise InputError(f'{path} holds no tensors: expected a state_dict')
    tensors, config = {}, {}
    for name, value in contents.items():
        if not isinstance(name, str):
            raise InputError(f'{path} has a key that is no string ({type(name).__name__}): expected a state_dict')
        if torch.is_tensor(value):
            tensors[name] = value.detach()
        elif name == 'config' and isinstance(value, dict):
            config = value
        else:
            raise InputError(f'{path}: {_shown(name)} is not a tensor: expected a state_dict')
    if not tensors:
        raise InputError(f'{path} holds no tensors: expected a state_dict')
    return tensors, config


def _without_wrappers(tensors):
    for prefix in ('module.', '_orig_mod.', 'module.'):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix):]: value for name, value in tensors.items()}
    return tensors


def _check_plain(path, name, tensor, size):
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex() \
            or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise InputError(f'{path}: {_shown(name)} is not a plain dense tensor (sparse, quantised, complex or without '
                         'data): save the float weights')
    if tensor.numel() * tensor.element_size() > size or \
            tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f'{path}: {_shown(name)} of shape {tuple(tensor.shape)} is larger than the file: it is '
                         'damaged, copy it again')


def _shown(name):
    return repr(name[:80])
