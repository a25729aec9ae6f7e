"""Files that are no weights of PyTorch: said what they are, with a way out; and pickles of arrays that lie."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save

from spark_bench import commands

TENSORS = {'layer1.0.conv1.weight': torch.ones(2, 2)}


def tar_of(name):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 9
        archive.addfile(entry, io.BytesIO(b'not empty'))
    return stream.getvalue()


def zip_of(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        for name in names:
            archive.writestr(name, b'something')
    return stream.getvalue()


def npz():
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(3))
    return stream.getvalue()


def npy():
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    return stream.getvalue()


POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n'
PAGE = b'\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>'
INDEX = b'{"metadata": {"total_size": 3}, "weight_map": {"a": "model-00001-of-00003.safetensors"}}'
# Fields 1 (version) and 2 (producer) of the message that an ONNX file is.
ONNX = b'\x08\x07\x12\x07pytorch\x1a\x052.1.0' + bytes(range(256))
LEVELDB = bytes(50) + b'\x01' + struct.pack('<Q', 0xDB4775248B80FB57)

# Name, contents, what it is, the way out.
FOREIGN = {
    'pointer': ('a.pth', POINTER, 'pointer of git-LFS', 'git lfs pull'),
    'pointer called safetensors': ('a.safetensors', POINTER, 'pointer of git-LFS', 'git lfs pull'),
    'page': ('a.pth', PAGE, 'web page', 'download the file itself'),
    'page called safetensors': ('a.safetensors', PAGE, 'web page', 'download the file itself'),
    'answer in XML': ('a.pth', b'<?xml version="1.0"?><Error><Code>NoAccess</Code></Error>', 'web page', 'download'),
    'hdf5': ('a.h5', b'\x89HDF\r\n\x1a\n' + bytes(100), 'HDF5', 'saved by PyTorch'),
    'keras': ('a.keras', zip_of('config.json', 'model.weights.h5'), 'Keras', 'saved by PyTorch'),
    'onnx': ('a.onnx', ONNX, 'ONNX', 'saved by PyTorch'),
    'onnx by content': ('a.pth', ONNX, 'ONNX', 'saved by PyTorch'),
    'gzip': ('a.pth.gz', gzip.compress(save(TENSORS)), 'compressed by gzip', 'unpack it'),
    'bzip2': ('a.bz2', b'BZh91AY&SY' + bytes(50), 'bzip2', 'unpack it'),
    'xz': ('a.xz', b'\xfd7zXZ\x00' + bytes(50), 'xz', 'unpack it'),
    'tar': ('a.pth.tar', tar_of('weights.pth'), 'tar archive', 'unpack it'),
    'zip': ('a.zip', zip_of('weights/a.safetensors'), 'zip archive', 'unpack it'),
    'npz': ('a.npz', npz(), 'archive of numpy', 'saved by PyTorch'),
    'npy': ('a.npy', npy(), 'array of numpy', 'saved by PyTorch'),
    'tensorflow index': ('model.ckpt.index', LEVELDB, 'TensorFlow', 'saved by PyTorch'),
    'tensorflow data': ('model.ckpt.data-00000-of-00001', bytes(range(200)), 'TensorFlow', 'saved by PyTorch'),
    'tensorflow graph': ('saved_model.pb', b'\x08\x01' + bytes(range(200)), 'TensorFlow', 'saved by PyTorch'),
    'tensorflow lite': ('a.tflite', b'\x1c\x00\x00\x00TFL3' + bytes(range(200)), 'TensorFlow', 'saved by PyTorch'),
    'flax': ('flax_model.msgpack', b'\x82\xa6params' + bytes(range(200)), 'Flax', 'saved by PyTorch'),
    'shard': ('model-00001-of-00003.safetensors', save(TENSORS), 'part 1 of 3', 'all parts'),
    'shard of torch': ('pytorch_model-00002-of-00002.bin', b'PK', 'part 2 of 2', 'all parts'),
    'index': ('model.safetensors.index.json', INDEX, 'list of the files', 'all parts'),
    'text': ('a.pth', b'Not Found\n', "text (it begins with 'Not Found')", 'saved by PyTorch'),
    'empty': ('a.pth', b'', 'is empty', 'fetch it again'),
    'empty safetensors': ('a.safetensors', b'', 'is empty', 'fetch it again'),
    'zeros': ('a.pth', bytes(5000), 'zeros', 'fetch it again'),
}


@pytest.mark.parametrize('name', FOREIGN)
@pytest.mark.parametrize('command', [('inspect',), ('convert', '--to', 'timm')], ids=['inspect', 'convert'])
def test_what_is_no_weights_is_named_with_a_way_out(name, command, tmp_path, capsys):
    name, contents, what, remedy = FOREIGN[name]
    path = tmp_path / name
    path.write_bytes(contents)
    assert commands.main([command[0], str(path), *command[1:]]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and str(path) in error and what in error and remedy in error, error
    assert 'copy it again' not in error


def test_one_part_of_one_is_the_whole(tmp_path, capsys):
    import timm

    path = tmp_path / 'model-00001-of-00001.safetensors'
    path.write_bytes(save(timm.create_model('test_resnet', num_classes=0).state_dict()))
    assert commands.main(['inspect', str(path)]) == 0


class Says:
    """Is pickled as whatever call it is given."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def array_of(shape, kind='f4', data=b'\0' * 16):
    """An array's pickle that states what it likes."""
    from numpy._core.multiarray import _reconstruct

    return Says(_reconstruct, (np.ndarray, (0,), b'b'), (1, shape, np.dtype(kind), False, data))


@pytest.mark.parametrize(
    'value',
    [
        array_of((5,)),
        array_of((1 << 40,)),
        array_of((-1,)),
        array_of((2, 1 << 62)),
        array_of((2,), 'O', [1, 2]),
        array_of((2,), 'M8[s]'),
        array_of((4,), 'V4'),
        array_of((2,), 'c8'),
        np.array(['text']),
        np.array([{}, 3]),
    ],
)
def test_an_array_that_is_not_plain_numbers_of_its_shape_is_refused(value, tmp_path, capsys):
    path = tmp_path / 'a.pkl'
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({'model': {'stem.conv1.weight': value}}, protocol=protocol))
        assert commands.main(['inspect', str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count('\n') == 1 and str(path) in error and 'unexpected' not in error


def test_a_pickle_of_arrays_runs_and_imports_nothing(tmp_path, capsys):
    import os
    import shutil

    path, target = tmp_path / 'a.pkl', tmp_path / 'ran'
    for call in (
        (os.mkdir, (str(target),)),
        (shutil.rmtree, (str(tmp_path),)),
        (eval, (f'open({str(target)!r}, "w")',)),
        (np.memmap, (str(target), 'u1', 'w+', 0, (4,))),
    ):
        for protocol in (0, 2, 4):
            path.write_bytes(pickle.dumps({'model': {'a.weight': np.ones(3), 'b': Says(*call)}}, protocol=protocol))
            assert commands.main(['inspect', str(path)]) == 2
            assert str(path) in capsys.readouterr().err
    # A module that is not loaded stays so.
    path.write_bytes(b'\x80\x02cthis\nn.o\n)R.')
    assert commands.main(['inspect', str(path)]) == 2
    path.write_bytes(b'\x80\x04' + pickle.dumps({'model': 3}, protocol=4)[2:-1] + b'r\xff\xff\xff\x7f.')
    assert commands.main(['inspect', str(path)]) == 2
    assert not target.exists() and path.exists()
