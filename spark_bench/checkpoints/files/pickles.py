"""Reading pickles without running anything in them: torch's files, and dicts of numpy arrays as detectron2 has them."""

import contextlib
import math
import mmap
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spark_bench.checkpoints.files.foreign import explain_archive
from spark_bench.errors import InputError

# A torch file of the old format begins with a pickle of this number.
LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
# No checkpoint has this many objects; reading more would take minutes.
_MOST_OPERATIONS = 5_000_000
_LONGEST_TUPLE_CHAIN = 1000

# What a file of plain tensors names. Everything else that torch would accept is a tensor that no network here can
# take (sparse, quantised, a subclass) or can ask for memory without bound (bytearray).
_PLAIN = re.compile(
    r'collections OrderedDict|torch (\w+Storage|u?int\d+|float\d\w*|bfloat16|bool|half|double|long|Size|device)|'
    r'torch\._utils _rebuild_(tensor|tensor_v[23]|parameter)|torch\.storage \w+Storage|'
    r'torch\.serialization _get_layout|_codecs encode|(builtins|__builtin__) set'
)
# Metadata of known training codes. Read as inert objects: nothing is imported, nothing is called.
_INERT = re.compile(
    # mmengine's HistoryBuffer names its methods by getattr, which is not called either.
    r'argparse Namespace|(builtins|__builtin__) getattr|mmengine\.logging\.history_buffer HistoryBuffer|'
    r'pathlib(\._local)? \w+|'  # as Python 3.13 has it, and no other
    r'numpy(\.\w+)* (_reconstruct|scalar|ndarray|dtype|_frombuffer)|torch\.torch_version TorchVersion'
)
_INERT_DICT = re.compile(
    r'yacs\.config CfgNode|fvcore\.common\.config CfgNode|mmengine\.config\.config ConfigDict|collections Counter|'
    r'(pytorch_lightning|lightning|lightning_fabric)(\.\w+)* AttributeDict'
)
# Numbers that arrays of weights are made of, as numpy writes their types.
_NUMBERS = re.compile(r'[<=|>]?([fiu][1248]|b1|\?)')


class Inert:
    """Stands for an object of somebody's training code; keeps nothing of it."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __setstate__(self, state):
        pass


def read_torch(path: Path, kind: str, size: int) -> Any:
    """Look through the pickle first, then let torch read it with weights-only loading; return what it holds.

    Args:
        path: the file.
        kind: ``torch zip`` or ``torch legacy``.
        size: of the file in bytes.

    Raises:
        InputError: for a file that names anything that is no plain data. Other exceptions of damaged files pass.
    """
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


def read_arrays(path: Path, size: int) -> Any:
    """What a pickle of plain data and numpy arrays holds; :func:`as_tensor` makes tensors of the arrays.

    Raises:
        InputError: as :func:`read_torch`.
    """
    with open(path, 'rb') as file:
        _scan(path, file, size, pickles=1, names=False)
        file.seek(0)
        return _ArrayUnpickler(path, file).load()


# Python's own and not C's: that one makes room for as many objects as a hostile file says it has.
class _ArrayUnpickler(pickle._Unpickler):
    """Makes stand-ins of everything that is named: no class or function of any library is ever looked up."""

    def __init__(self, path, file):
        # Text of Python 2 holds the bytes of its arrays.
        super().__init__(file, encoding='latin1')
        self.path = path

    def find_class(self, module, name):
        if module in (
            'numpy.core.multiarray',
            'numpy._core.multiarray',
            'numpy',
            'numpy.core.numeric',
            'numpy._core.numeric',
        ):
            found = {
                '_reconstruct': lambda *_: _Array(),
                'ndarray': _Array,
                'dtype': _Type,
                'scalar': Inert,
                '_frombuffer': _from_buffer,
            }.get(name)
            if found is not None:
                return found
        if (module, name) == ('_codecs', 'encode'):
            return _encode
        if (module, name) == ('collections', 'OrderedDict'):
            return OrderedDict
        inert = {}
        _allow(self.path, f'{module} {name}', inert)
        return next(iter(inert.values()), Inert)

    def persistent_load(self, pid):
        raise pickle.UnpicklingError('a reference to something outside of the file')


class _Type:
    """The type of an array's numbers: numpy's dtype, of plain numbers alone."""

    def __init__(self, text, *_):
        self.text, self.order = str(text), '<'

    def __setstate__(self, state):
        self.order = state[1] if state[1] in '<>' else '<'

    def numpy(self):
        if not _NUMBERS.fullmatch(self.text):
            raise ValueError(f'an array of {self.text[:20]}')
        return np.dtype(self.text).newbyteorder(self.order)


class _Array:
    """An array of numpy as its pickle describes it; ``tensor`` is None until that is complete."""

    tensor = None

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        _, shape, kind, by_columns, data = state
        data = data.encode('latin1') if isinstance(data, str) else data
        self.tensor = _tensor(shape, kind, 'F' if by_columns else 'C', data)


def _from_buffer(data, kind, shape, order):
    array = _Array()
    array.tensor = _tensor(shape, kind, order, data)
    return array


def _tensor(shape, kind, order, data):
    array = np.frombuffer(data, kind.numpy())
    if math.prod(shape) != len(array):
        raise ValueError(f'an array of {len(array)} numbers in a shape of {shape}')
    array = array.reshape(shape, order=order)
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder('=')).reshape(shape).copy())


def _encode(text, encoding='latin1'):
    if encoding != 'latin1':
        raise ValueError(f'bytes in {encoding[:20]}')
    return text.encode('latin1')


def as_tensor(value: Any) -> torch.Tensor | None:
    """A tensor, or an array of :func:`read_arrays` as one; None for anything else."""
    if isinstance(value, _Array):
        return value.tensor
    return value.detach() if torch.is_tensor(value) else None


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
        raise InputError(f'{path} {explain_archive(names)}')
    if (
        any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        or sum(entry.file_size for entry in entries) > size
        or len(set(names)) != len(names)
    ):
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


def _scan(path, stream, size, pickles, names=True):
    """Check how much the pickles ask for, and which globals they name; return stand-ins for the harmless ones."""
    inert = {}
    operations, chain, integer = 0, 0, 0
    for _ in range(pickles):
        for opcode, argument, _ in pickletools.genops(stream):
            operations += 1
            chain = chain + 1 if opcode.name.startswith('TUPLE') else 0 if opcode.name == 'REDUCE' else chain
            if operations > _MOST_OPERATIONS or chain > _LONGEST_TUPLE_CHAIN:
                raise InputError(f'{path} holds more than a checkpoint can (a pickle made to exhaust its reader)')
            if names and opcode.name in ('GLOBAL', 'STACK_GLOBAL', 'INST'):
                _allow(path, argument, inert)
            elif (
                isinstance(argument, int)
                and opcode.name.startswith(('BININT', 'LONG', 'INT'))
                and 'GET' not in opcode.name
                and 'PUT' not in opcode.name
            ):
                integer = argument
            elif opcode.name == 'BINPERSID' and not 0 <= integer <= size:
                raise InputError(f'{path} is damaged (it declares a storage of {integer} elements in {size} bytes)')
    # torch finds a class by its module and name.
    return [
        type(name.rpartition('.')[2], (base,), {'__module__': name.rpartition('.')[0]}) for name, base in inert.items()
    ]


def _allow(path, name, inert):
    name = name or 'an unnamed object'
    if _PLAIN.fullmatch(name):
        return
    # torch looks Python 2's names up under Python 3's.
    dotted = name.replace(' ', '.').replace('__builtin__.', 'builtins.')
    if _INERT.fullmatch(name):
        inert[dotted] = Inert
    elif _INERT_DICT.fullmatch(name):
        inert[dotted] = OrderedDict
    else:
        shown = re.sub(r'[^\w.]', '?', dotted)[:80]
        raise InputError(
            f'{path} holds more than tensors ({shown}), or is damaged; it was not unpickled: save its '
            'state_dict alone with safetensors.torch.save_file, where it was made'
        )
