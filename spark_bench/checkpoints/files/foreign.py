"""What a file is that holds no weights of PyTorch, and what can be done about it."""

import re
from collections.abc import Collection
from pathlib import Path

_UNPACK = 'unpack it, and give the .pth or .safetensors file inside'
_TORCH = 'give weights saved by PyTorch (.safetensors or .pth)'
# What files of a kind begin with, what they are, and the way out.
_BEGINNINGS = (
    (
        b'version https://git-lfs',
        'is a pointer of git-LFS, not the weights themselves',
        'run `git lfs pull` in its repository, or download the file from its page',
    ),
    (b'\x89HDF\r\n\x1a\n', 'is an HDF5 file, as Keras and TensorFlow write them', _TORCH),
    (b'\x1f\x8b', 'is compressed by gzip', f'gunzip or `tar xzf` it: {_UNPACK}'),
    (b'BZh', 'is compressed by bzip2', _UNPACK),
    (b'\xfd7zXZ\x00', 'is compressed by xz', _UNPACK),
    (b'\x28\xb5\x2f\xfd', 'is compressed by zstd', _UNPACK),
    (b'7z\xbc\xaf\x27\x1c', 'is a 7z archive', _UNPACK),
    (b'Rar!', 'is a RAR archive', _UNPACK),
    (b'\x93NUMPY', 'is a single array of numpy (.npy)', _TORCH),
    (b'model_checkpoint_path:', 'is the list of checkpoints that TensorFlow keeps', _TORCH),
    (b'GGUF', 'is a GGUF file', _TORCH),
    (b'%PDF', 'is a PDF', 'give the file of weights'),
    (b'\x89PNG', 'is an image', 'give the file of weights'),
    (b'\xff\xd8\xff', 'is an image', 'give the file of weights'),
)
_PAGE = re.compile(rb'\s*(<!doctype html|<html|<\?xml|<head|<script|<!--)', re.I)
_SHARD = re.compile(r'-(\d{5})-of-(\d{5})\.\w+$')
_MERGE = (
    'put the tensors of all parts into one dict, and save that with safetensors.torch.save_file; or take the '
    'file that is not split'
)
SHARDED = (
    'is a checkpoint in parts, as torch.distributed writes it: join them with '
    '`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER OUT.pth`'
)
# LevelDB's end mark, with which TensorFlow's .index files end.
_TABLE_END = bytes.fromhex('57fb808b247547db')
_HEAD = 1024


def explain(path: Path, size: int) -> str | None:
    """What ``path`` is instead of weights, and the way out; None for what may be weights.

    Args:
        path: a file that can be read.
        size: in bytes.
    """
    if size == 0:
        return 'is empty: it was not written, or not downloaded, to its end; fetch it again'
    with open(path, 'rb') as file:
        head = file.read(_HEAD)
        file.seek(max(0, size - len(_TABLE_END)))
        end = file.read()
    if path.suffix == '.distcp' or path.name == '.metadata':
        return SHARDED
    shard = _SHARD.search(path.name)
    if shard and int(shard[2]) > 1:
        return f'is part {int(shard[1])} of {int(shard[2])} of its weights: {_MERGE}'
    if path.name.endswith('.index.json') or b'"weight_map"' in head and head[:1] == b'{':
        return f'is the list of the files that its weights are split into, not one of them: {_MERGE}'
    for beginning, what, remedy in _BEGINNINGS:
        if head.startswith(beginning):
            return f'{what}: {remedy}'
    if _PAGE.match(head):
        return (
            'is a web page, not the file that it is about: download the file itself (on GitHub and Hugging Face by '
            'its button "download" or "raw"; behind a login or a warning, by hand)'
        )
    if head[257:262] == b'ustar':
        return f'is a tar archive: `tar xf` it: {_UNPACK}'
    if (
        end == _TABLE_END
        or re.search(r'\.data-\d+-of-\d+$|\.ckpt\.(index|meta)$|\.pb$', path.name)
        or head[4:8] == b'TFL3'
    ):
        return f'is a file of TensorFlow: {_TORCH}'
    if head[8:9] != b'{' and (path.suffix == '.onnx' or re.match(rb'\x08[\x01-\x20][\x12\x3a\x42]', head)):
        return f'is an ONNX program: {_TORCH}'
    if path.suffix == '.msgpack':
        return f'is a file of Flax (msgpack): {_TORCH}'
    if not any(head):
        return 'begins with zeros alone: it was not written to its end; fetch it again'
    if head[8:9] != b'{' and _is_text(head):
        shown = ascii(' '.join(head[:40].decode('utf-8', 'ignore').split()))
        return f'is text (it begins with {shown}), not weights: {_TORCH}'
    return None


def explain_archive(names: Collection[str]) -> str:
    """The same of a zip archive that torch did not write, by the names of its entries."""
    if names and all(name.endswith('.npy') for name in names):
        return f'is an archive of numpy (.npz): {_TORCH}'
    if any(name.endswith(('.h5', '.weights.h5')) for name in names):
        return f'is a model of Keras: {_TORCH}'
    if any(name.endswith(('.pth', '.pt', '.bin', '.safetensors', '.ckpt', '.tar')) for name in names):
        return f'is a zip archive with other files in it: {_UNPACK}'
    return 'is a zip archive but not a checkpoint of torch: give the .pth file itself'


def _is_text(head):
    try:
        text = head.decode('utf-8')
    except UnicodeDecodeError:
        return False
    return len(text) > 1 and all(letter.isprintable() or letter in '\r\n\t\ufeff' for letter in text)
