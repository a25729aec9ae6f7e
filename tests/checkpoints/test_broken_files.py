"""Broken and hostile files: always one line that names the file, no traceback, no code run, little memory."""

import argparse
import io
import os
import pickle
import random
import resource
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.distributed.checkpoint
from safetensors.torch import save

from spark_bench import checkpoints, commands
from spark_bench.checkpoints.inspect import inspect
from spark_bench.errors import InputError

# The test of a release runs more: SPARK_BENCH_FUZZ=5000.
ROUNDS = int(os.environ.get('SPARK_BENCH_FUZZ', '150'))


def assert_refused(path, act=inspect):
    with pytest.raises(InputError) as error:
        act(path)
    text = str(error.value)
    assert str(path) in text and '\n' not in text and len(text) < 600 + len(str(path))


def saved(contents, **options):
    stream = io.BytesIO()
    torch.save(contents, stream, **options)
    return stream.getvalue()


@pytest.fixture(scope='module')
def whole():
    """The same small file in the four containers."""
    torch.manual_seed(0)
    state = timm.create_model('test_convnext', num_classes=0).state_dict()
    contents = {'model': state, 'arch': 'test_convnext', 'epoch': 3}
    return {
        'zip': saved(contents),
        'legacy': saved(contents, _use_new_zipfile_serialization=False),
        'safetensors': save(state, {'arch': 'test_convnext'}),
        'pickle': pickle.dumps({'model': {name: value.numpy() for name, value in state.items()}, 'author': 'a'}, 2),
    }


def mutate(data, rng):
    """Cut, flip, overwrite, insert, repeat, or swap pieces of a file."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        # Half of the damage where the structure is: at the beginning and at the end.
        zone = rng.choice(((0, len(data)), (0, min(3000, len(data))), (max(0, len(data) - 3000), len(data))))
        place = rng.randrange(*zone) if zone[1] > zone[0] else 0
        kind = rng.randrange(7)
        if kind == 0:
            del data[place:]
        elif kind == 1 and data:
            data[place % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[place : place + 8] = rng.choice((b'\xff' * 8, bytes(8), b'\xff' * 7 + b'\x7f', rng.randbytes(8)))
        elif kind == 3:
            data[place:place] = rng.randbytes(rng.randrange(1, 40))
        elif kind == 4:
            del data[place : place + rng.randrange(1, 400)]
        elif kind == 5:
            data[place:place] = data[place // 2 : place // 2 + rng.randrange(1, 200)]
        else:
            data[place : place + 4] = rng.choice((b'\x85\x85\x85\x85', b'R.R.', b'\x8a\xff', b'Q\x80\x02}', b'(tR.'))
    return bytes(data)


@pytest.mark.parametrize('container', ['zip', 'legacy', 'safetensors', 'pickle'])
def test_any_damage_is_refused_or_leaves_a_readable_file(container, whole, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / 'a.pth'
    rng = random.Random(f'{container} {ROUNDS}')
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(mutate(whole[container], rng))
        try:
            report = inspect(path)
            assert report['tensors'] > 0
            checkpoints.load(timm.create_model('test_convnext', num_classes=0), path)
        except InputError as error:
            refused += 1
            assert str(path) in str(error) and '\n' not in str(error)
    assert refused > ROUNDS // 3
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000, f'{grown} kB more memory for files of {len(whole[container]) // 1000} kB'


def test_flipped_weights_in_a_torch_file_are_noticed(whole, tmp_path):
    data = bytearray(whole['zip'])
    data[len(data) // 2] ^= 4
    (tmp_path / 'a.pth').write_bytes(data)
    with pytest.raises(InputError, match='checksum'):
        inspect(tmp_path / 'a.pth')


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'bomb',
    [
        lambda p: Runs(os.mkdir, p),
        lambda p: Runs(eval, f'__import__("os").mkdir({p!r})'),
        lambda p: Runs(exec, f'open({p!r}, "w")'),
        lambda p: Runs(bytearray, 1 << 40),
        lambda p: Runs(torch.zeros, 1 << 40),
        lambda p: Runs(torch.jit.load, p),
        lambda p: Runs(np.load, p),
    ],
)
@pytest.mark.parametrize('new', [True, False])
def test_pickles_with_code_are_refused_unrun(bomb, new, tmp_path):
    target = tmp_path / 'ran'
    path = tmp_path / 'a.pth'
    path.write_bytes(
        saved({'state_dict': {'w': torch.ones(2)}, 'x': bomb(str(target))}, _use_new_zipfile_serialization=new)
    )
    assert_refused(path)
    path.write_bytes(pickle.dumps(bomb(str(target)), protocol=2 if new else 4))
    assert_refused(path)
    assert not target.exists()


def _sparse():
    return torch.eye(4).to_sparse()


@pytest.mark.parametrize(
    'contents',
    [
        {},
        [],
        3,
        None,
        'text',
        [[torch.ones(2)]],
        torch.ones(3),
        {1: torch.ones(2)},
        {('a',): torch.ones(2)},
        {'model': {}},
        {'model': []},
        {'state_dict': {'state_dict': {'state_dict': {}}}},
        {'a': [torch.ones(2)]},
        {'a': {'b': torch.ones(2)}},
        {'a': torch.ones(2), 'b': 3},
        {'a': _sparse()},
        {'a': torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)},
        {'a': torch.ones(3, device='meta')},
        {'a': torch.ones(3, dtype=torch.complex64)},
        {'a': torch.zeros(1).expand(1 << 20)},
    ],
)
@pytest.mark.filterwarnings('ignore')
def test_contents_that_are_no_state_dict_of_plain_tensors(contents, tmp_path):
    torch.save(contents, tmp_path / 'a.pth')
    assert_refused(tmp_path / 'a.pth')


def test_a_dict_that_contains_itself_does_not_hang(tmp_path):
    contents = {}
    contents['model'] = contents
    torch.save(contents, tmp_path / 'a.pth')
    assert_refused(tmp_path / 'a.pth')


def test_zero_dimensional_tensors_under_known_names(tmp_path):
    for family, anchors in {
        'vit': ('pos_embed', 'patch_embed.proj.weight', 'blocks.0.attn.qkv.weight'),
        'convnext': ('downsample_layers.0.0.weight', 'stages.0.0.dwconv.weight'),
        'swin': ('patch_embed.proj.weight', 'layers.0.blocks.0.attn.qkv.weight'),
        'mm': (
            'patch_embed.projection.weight',
            'stages.0.blocks.0.attn.w_msa.qkv.weight',
            'stages.0.downsample.norm.weight',
        ),
        'resnet': ('layer1.0.conv1.weight', 'layer4.0.conv1.weight', 'conv1.weight'),
    }.items():
        torch.save({name: torch.tensor(1.0) for name in anchors}, tmp_path / f'{family}.pth')
        assert inspect(tmp_path / f'{family}.pth')['problems']
        for to in ('timm', 'mmpretrain', 'official', 'safetensors'):
            assert commands.main(['convert', str(tmp_path / f'{family}.pth'), '--to', to, '--force']) in (0, 2)
        with pytest.raises(InputError):
            checkpoints.load(timm.create_model('test_convnext'), tmp_path / f'{family}.pth')


def test_archives_that_are_not_what_torch_writes(tmp_path):
    path = tmp_path / 'a.pth'
    for names, compression in (
        (['a/data.pkl', 'b/data.pkl'], zipfile.ZIP_STORED),
        (['readme'], zipfile.ZIP_STORED),
        (['a/data.pkl'], zipfile.ZIP_DEFLATED),
        (['a/data.pkl', 'a/code/x.py'], 0),
    ):
        with zipfile.ZipFile(path, 'w', compression) as archive:
            for name in names:
                archive.writestr(name, bytes(100_000))
        assert_refused(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    assert_refused(path)


def test_headers_that_ask_for_the_world(tmp_path):
    for length in (1 << 62, 1 << 40, 99_999_999, 2):
        (tmp_path / 'a.safetensors').write_bytes(length.to_bytes(8, 'little') + b'{}')
        assert_refused(tmp_path / 'a.safetensors')
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    (tmp_path / 'a.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header)
    assert_refused(tmp_path / 'a.safetensors')


def test_folders_pipes_and_forbidden_files(tmp_path, monkeypatch):
    (tmp_path / 'folder.pth').mkdir()
    assert_refused(tmp_path / 'folder.pth')
    os.mkfifo(tmp_path / 'pipe.pth')
    assert_refused(tmp_path / 'pipe.pth')
    assert_refused(tmp_path / 'nothing.pth')
    (tmp_path / 'loop.pth').symlink_to(tmp_path / 'loop.pth')
    assert_refused(tmp_path / 'loop.pth')
    assert_refused(tmp_path / ('n' * 300))
    forbidden = tmp_path / 'forbidden.pth'
    forbidden.write_bytes(b'x')

    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied', str(forbidden))

    # The superuser, who may run these tests, is never refused by the file system.
    monkeypatch.setattr('builtins.open', refuse)
    assert_refused(forbidden)


def test_metadata_of_known_training_codes_is_passed_over(tmp_path):
    from mmengine.logging import HistoryBuffer

    state = timm.create_model('test_convnext', num_classes=0).state_dict()
    contents = {
        'state_dict': OrderedDict(state),
        'arch': 'test_convnext',
        'args': argparse.Namespace(lr=0.1, names=['a'], data=Path('/data')),
        'optimizer': torch.optim.AdamW(torch.nn.Linear(2, 2).parameters()).state_dict(),
        'message_hub': {'loss': HistoryBuffer([1.0, 2.0], [1, 1]), 'best': np.float64(3), 'a': np.ones(3)},
    }
    for new in (True, False):
        torch.save(contents, tmp_path / 'a.pth', _use_new_zipfile_serialization=new)
        report = inspect(tmp_path / 'a.pth')
        assert report['arch'] == 'test_convnext' and not report['problems']
        assert set(report['left_out']) == {'args', 'optimizer', 'message_hub'}


def test_a_path_that_python_3_13_pickled_is_passed_over(tmp_path, monkeypatch):
    """There alone the class says that it is of ``pathlib._local``."""
    local = types.ModuleType('pathlib._local')
    monkeypatch.setitem(sys.modules, 'pathlib._local', local)
    local.PosixPath = type(
        'PosixPath', (), {'__module__': 'pathlib._local', '__reduce__': lambda self: (type(self), ('/data',))}
    )
    state = timm.create_model('test_convnext', num_classes=0).state_dict()
    torch.save({'state_dict': state, 'arch': 'test_convnext', 'data': local.PosixPath()}, tmp_path / 'a.pth')
    monkeypatch.delitem(sys.modules, 'pathlib._local')
    assert set(inspect(tmp_path / 'a.pth')['left_out']) == {'data'}


def test_a_checkpoint_in_parts_is_told_with_how_to_join_them(tmp_path):
    folder = tmp_path / 'parts'
    torch.distributed.checkpoint.save({'a': torch.zeros(3)}, checkpoint_id=folder, no_dist=True)
    for path in (folder, folder / '.metadata', next(folder.glob('*.distcp'))):
        with pytest.raises(InputError, match='is a checkpoint in parts.* dcp_to_torch'):
            inspect(path)
