"""Writing weights: whole or not at all, as readable as other files, and one line where there is no room."""

import contextlib
import http.server
import os
import resource
import shutil
import threading

import pytest
import timm
import torch

from pretrain import build_spark
from spark_bench import checkpoints, commands
from spark_bench.checkpoints import published
from spark_bench.checkpoints.writing import save_torch
from spark_bench.errors import InputError, RunError
from spark_bench.files import new_file

LIMIT = 100_000


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'a.safetensors'
    checkpoints.save(timm.create_model('test_resnet', num_classes=0), path, {'arch': 'test_resnet'})
    return path


@contextlib.contextmanager
def no_room():
    """The system refuses files that are larger than this, as it refuses them on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_convert_without_room_is_one_line_with_the_file(suffix, source, tmp_path, capfd):
    (tmp_path / 'out').mkdir()
    output = tmp_path / 'out' / f'x{suffix}'
    output.write_bytes(b'of yesterday')
    with no_room():
        status = commands.main(['convert', str(source), '--to', 'timm', '--output', str(output), '--force'])
    error = capfd.readouterr().err
    assert status == 2 and error.count('\n') == 1 and f'{output} cannot be written: File too large' in error, error
    assert '.tmp' not in error and 'unexpected' not in error
    assert output.read_bytes() == b'of yesterday' and list((tmp_path / 'out').iterdir()) == [output]


@pytest.mark.parametrize(
    'save',
    [
        lambda path: checkpoints.save(timm.create_model('test_resnet'), path, {}),
        lambda path: checkpoints.save_spark(build_spark('test_resnet', 64, decoder_width=64), path, {}),
        lambda path: save_torch({'model': {'a': torch.ones(LIMIT)}}, path),
    ],
    ids=['save', 'save_spark', 'save_torch'],
)
def test_every_way_of_writing_weights_says_so_alike(save, tmp_path):
    with pytest.raises(InputError, match='weights.bin cannot be written: File too large'), no_room():
        save(tmp_path / 'weights.bin')
    with pytest.raises(InputError, match='weights.bin cannot be written: No such file or directory; make its folder'):
        save(tmp_path / 'nowhere' / 'weights.bin')
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_called_so(tmp_path, monkeypatch, source, capsys):
    def fail(tensors, path, metadata):
        raise OSError(28, 'No space left on device', str(path))

    monkeypatch.setattr('spark_bench.checkpoints.writing.save_file', fail)
    assert commands.main(['convert', str(source), '--to', 'timm']) == 2
    error = capsys.readouterr().err
    assert f'{tmp_path / "a.timm.safetensors"} cannot be written: No space left on device; make room' in error


def test_a_folder_that_is_read_only_is_named_by_the_output(source, monkeypatch, capsys):
    real = open

    # The superuser, who may run these tests, is never refused by the file system.
    def refuse(path, mode='r', *more, **options):
        if 'x' in mode:
            raise PermissionError(13, 'Permission denied', str(path))
        return real(path, mode, *more, **options)

    monkeypatch.setattr('builtins.open', refuse)
    assert commands.main(['convert', str(source), '--to', 'timm']) == 2
    error = capsys.readouterr().err
    assert 'a.timm.safetensors cannot be written: Permission denied' in error and '.tmp' not in error


@pytest.mark.parametrize('mask, mode', [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_all_weights_are_as_readable_as_other_files(mask, mode, source, tmp_path, monkeypatch):
    entry = dict(
        name='spark', arch='test_resnet', file='b.safetensors', url=source.as_uri(), source='a test', sha256=None
    )
    monkeypatch.setattr(published, 'read_index', lambda: [entry])
    before = os.umask(mask)
    try:
        fetched = published.find_published('spark', 'test_resnet', tmp_path / 'cache', download=True)
        written = [tmp_path / 'b.pth', tmp_path / 'c.safetensors']
        for path in written:
            assert commands.main(['convert', str(source), '--to', 'timm', '--output', str(path)]) == 0
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (fetched, *written)] == [mode] * 3
    assert fetched.read_bytes() == source.read_bytes()


def test_a_download_that_fails_leaves_nothing_and_says_whose_fault_it_is(source, tmp_path, monkeypatch):
    entry = dict(
        name='spark',
        arch='test_resnet',
        file='b.safetensors',
        url=(tmp_path / 'no').as_uri(),
        sha256=None,
        source='a test',
    )
    monkeypatch.setattr(published, 'read_index', lambda: [entry])
    with pytest.raises(RunError, match='cannot be fetched'):
        published.find_published('spark', 'test_resnet', tmp_path / 'cache', download=True)
    entry['url'] = source.as_uri()
    with pytest.raises(InputError, match='b.safetensors cannot be written: File too large'), no_room():
        published.find_published('spark', 'test_resnet', tmp_path / 'cache', download=True)
    assert list((tmp_path / 'cache/weights').iterdir()) == []
    shutil.rmtree(tmp_path / 'cache')
    (tmp_path / 'cache').write_bytes(b'')
    with pytest.raises(InputError, match='cannot be made'):
        published.find_published('spark', 'test_resnet', tmp_path / 'cache', download=True)


class HalfAFile(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '1000')
        self.end_headers()
        self.wfile.write(b'half')


def test_a_download_that_breaks_off_is_no_file(tmp_path, monkeypatch):
    with http.server.HTTPServer(('127.0.0.1', 0), HalfAFile) as server:
        threading.Thread(target=server.handle_request).start()
        entry = dict(
            name='spark',
            arch='test_resnet',
            file='b.safetensors',
            sha256=None,
            source='a test',
            url=f'http://127.0.0.1:{server.server_port}/b',
        )
        monkeypatch.setattr(published, 'read_index', lambda: [entry])
        with pytest.raises(RunError, match='broke off after 4 of 1000 bytes'):
            published.find_published('spark', 'test_resnet', tmp_path, download=True)
    assert list((tmp_path / 'weights').iterdir()) == []


def test_what_is_not_the_disks_fault_keeps_its_name(tmp_path):
    for error in (KeyError('a'), RuntimeError('b')):
        with pytest.raises(type(error)), new_file(tmp_path / 'a') as partial:
            partial.write_bytes(b'half')
            raise error
    assert list(tmp_path.iterdir()) == []
