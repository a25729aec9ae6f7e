"""Pictures inside archives, with random access.

The ``webdataset`` package reads shards as streams: its shuffle reaches no further than a buffer, the number of
pictures a process sees depends on how shards divide among processes, and a resumed run must read again what it had
passed. A plain tar file, though, can be indexed: where each member begins and how long it is. With that, shards are a
numbered set like any other.
"""

import contextlib
import hashlib
import io
import os
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from spark_bench.data.embedded.cache import default_cache_dir
from spark_bench.data.listing import NameTable, held_out_folders, is_picture, no_pictures
from spark_bench.errors import InputError

_BLOCK = tarfile.BLOCKSIZE


class TarShards:
    """Pictures in uncompressed tar files, but for folders in them that are held out for evaluation.

    The index of a shard is kept in the cache folder, under the shard's path, size and time of change.

    Args:
        shards: paths, in order.
        left_out: shards that were passed over because they are held out for evaluation.

    Raises:
        InputError: naming the shard that is cut short, compressed or without any picture.
    """

    def __init__(self, shards, left_out=()):
        self._shards = [str(shard) for shard in shards]
        indices = [load_index(shard) for shard in self._shards]
        held_out = held_out_folders(name for names, _, _ in indices for name in names)
        self.left_out = (*left_out, *sorted(held_out))
        if held_out:
            indices = [_without(held_out, index) for index in indices]
        self._names = NameTable(name for names, _, _ in indices for name in names)
        self._shard = np.repeat(np.arange(len(indices), dtype=np.int32), [len(names) for names, _, _ in indices])
        self._start = np.concatenate([starts for _, starts, _ in indices])
        self._size = np.concatenate([sizes for _, _, sizes in indices])

    def __len__(self):
        return len(self._names)

    def name(self, index):
        """``shard.tar:member``."""
        return f'{self._shards[self._shard[index]]}:{self._names[index]}'

    def open(self, index):
        """The contents of a member as a binary file."""
        # Opened anew each time: worker processes share no position, and thousands of shards need no open files.
        start, size = int(self._start[index]), int(self._size[index])
        with open(self._shards[self._shard[index]], 'rb', buffering=0) as file:
            contents = os.pread(file.fileno(), size, start)
        if len(contents) < size:
            raise EOFError('truncated shard')
        return io.BytesIO(contents)

    def fingerprint(self):
        """SHA-256 over the members' names and sizes, hex."""
        digest = hashlib.sha256()
        for index, name in enumerate(self._names):
            digest.update(os.fsencode(name) + f'\0{self._size[index]}\n'.encode())
        return digest.hexdigest()


def _inside(name, folders):
    """Whether the member lies in one of the folders, at any depth."""
    return any(name.startswith(f'{folder}/') for folder in folders)


def _without(folders, index):
    names, starts, sizes = index
    kept = [place for place, name in enumerate(names) if not _inside(name, folders)]
    return [names[place] for place in kept], starts[kept], sizes[kept]


def load_index(shard):
    """``(names, starts, sizes)`` of the pictures in a tar file, from the cache where it is still right."""
    try:
        status = os.stat(shard)
    except OSError as error:
        raise InputError(f'{shard} cannot be read: {error.strerror}') from error
    key = f'{os.path.realpath(shard)}\0{status.st_size}\0{status.st_mtime_ns}'
    cached = Path(default_cache_dir()) / 'tar-index' / f'{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.npz'
    # A damaged index fails its checksum, and is made anew.
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error), \
            np.load(cached, allow_pickle=False) as stored:
        names = [os.fsdecode(name) for name in stored['names'].tobytes().split(b'\0')]
        if len(names) == len(stored['starts']) == len(stored['sizes']):
            return names, stored['starts'], stored['sizes']
    names, starts, sizes = build_index(shard)
    with contextlib.suppress(OSError):
        _store(cached, names, starts, sizes)
    return names, starts, sizes


def _store(path, names, starts, sizes):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.stem}.{os.getpid()}.npz')
    joined = b'\0'.join(os.fsencode(name) for name in names)
    np.savez(partial, names=np.frombuffer(joined, dtype=np.uint8), starts=starts, sizes=sizes)
    os.replace(partial, path)


def build_index(shard):
    """Read the headers of a tar file; see :func:`load_index`.

    Raises:
        InputError: where the file is no plain tar, is cut short, or holds no picture.
    """
    names, starts, sizes = [], [], []
    try:
        with open(shard, 'rb') as file, tarfile.open(fileobj=file, mode='r:') as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # which tarfile would keep, a kilobyte each
                if member.isreg() and not member.issparse() and is_picture(member.name):
                    names.append(member.name)
                    starts.append(member.offset_data)
                    sizes.append(member.size)
            # tarfile ends silently at a header that it cannot read. A whole archive ends in blocks of zeros.
            file.seek(tar.offset)
            whole = file.read(_BLOCK) == bytes(_BLOCK)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f'{shard} is not an uncompressed tar file ({error}): copy it again, or unpack it to a plain '
                         '.tar') from error
    except OSError as error:
        raise InputError(f'{shard} cannot be read: {error.strerror}') from error
    if not whole:
        raise InputError(f'{shard} is cut short or damaged after {len(names)} pictures: copy it again')
    if not names:
        raise no_pictures(shard)
    return names, np.array(starts, dtype=np.int64), np.array(sizes, dtype=np.int64)


class ZipArchive:
    """Pictures in a zip file, but for folders in it that are held out for evaluation.

    Raises:
        InputError: where the file is not a whole zip archive or holds no picture.
    """

    def __init__(self, path):
        self.path = str(path)
        self._archive, self._owner = None, None
        try:
            entries = [entry for entry in self._opened().infolist()
                       if is_picture(entry.filename) and not entry.is_dir()]
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise InputError(f'{path} is not a whole zip archive ({error}): copy it again') from error
        except OSError as error:
            raise InputError(f'{path} cannot be read: {error.strerror}') from error
        if not entries:
            raise no_pictures(path)
        held_out = held_out_folders(entry.filename for entry in entries)
        self.left_out = tuple(sorted(held_out))
        entries = [entry for entry in entries if not _inside(entry.filename, held_out)]
        self._names = NameTable(entry.filename for entry in entries)
        self._checks = np.array([(entry.file_size, entry.CRC) for entry in entries], dtype=np.int64)

    def _opened(self):
        # A handle keeps a position in the file: each process needs one of its own.
        if self._owner != os.getpid():
            self._archive, self._owner = zipfile.ZipFile(self.path), os.getpid()
        return self._archive

    def __getstate__(self):
        return {**self.__dict__, '_archive': None, '_owner': None}

    def __len__(self):
        return len(self._names)

    def name(self, index):
        """``archive.zip:member``."""
        return f'{self.path}:{self._names[index]}'

    def open(self, index):
        """The contents of a member as a binary file."""
        return io.BytesIO(self._opened().read(self._names[index]))

    def fingerprint(self):
        """SHA-256 over the members' names, sizes and checksums, hex."""
        digest = hashlib.sha256()
        for name, (size, crc) in zip(self._names, self._checks, strict=True):
            digest.update(os.fsencode(name) + f'\0{size}\0{crc}\n'.encode())
        return digest.hexdigest()
