"""What data is: the names and contents of its files, whatever their sizes and times.

Each file is hashed once. Its digest is kept in the cache folder, in one file a data root, under the file's number on
its disk, its size and its times of change: a file that is written, replaced or renamed is hashed again.
"""

import contextlib
import hashlib
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from spark_bench.data.images.progress import Progress
from spark_bench.errors import InputError, printable
from spark_bench.files import new_file
from spark_bench.locks import hold
from spark_bench.places import cache_folder

# Bytes of a digest, and of what it is kept under.
_SIZE = 16
_BLOCK, _CHUNK, _THREADS = 1 << 20, 8192, 16
# A file that was changed a moment ago may change again without a new time: clocks of disks are coarse.
_SETTLED_NS = 2_000_000_000
# Another process that reads the same data is waited for without a word for so long.
_PATIENCE_S = 5.0
# Of so many files of a root, digests are kept that the last call had no use for. (32 bytes each.)
_KEPT = 4_000_000
_STORED_EVERY_S = 60


def contents_digest(root: Path | str, names: Sequence[str]) -> str:
    """SHA-256 over the names and contents of files, in their order; hex.

    Where nothing has changed since the last call, on whatever names of the same root, no file is opened. A long call
    tells on standard error how far it is. Of several processes at once, one hashes and the others find its digests.

    Args:
        names: paths relative to the root, or absolute; for many a
            :class:`~spark_bench.data.images.numbered.NameTable`.

    Raises:
        InputError: naming a file that is not there. One that may not be read is a part of the identity as such: what
            becomes of it is the reader's to decide.
    """
    digest = hashlib.sha256()
    for name, own in zip(names, file_digests(root, names), strict=True):
        digest.update(os.fsencode(name) + b'\0' + own.tobytes())
    return digest.hexdigest()


def file_digests(root: Path | str, names: Sequence[str]) -> np.ndarray:
    """Digests of files' contents; see :func:`contents_digest`.

    Returns:
        uint8 ``(len(names), 16)``: BLAKE2b.
    """
    root = str(root)
    name = _hash(os.fsencode(os.path.realpath(root))).hex()
    place = cache_folder() / 'contents' / f'{name}.npz'
    with _alone(place.with_name(f'{name[:2]}.lock')):
        store = _Store(place)
        found = np.zeros((len(names), _SIZE), np.uint8)
        progress, pool = Progress('files read for the identity of the data'), ThreadPoolExecutor(_THREADS)
        try:
            for start in range(0, len(names), _CHUNK):
                end = min(start + _CHUNK, len(names))
                paths = [os.path.join(root, names[index]) for index in range(start, end)]
                keys, settled = _keys_of(pool, paths)
                digests, known = store.find(keys)
                absent = np.flatnonzero(~known)
                hashed = pool.map(_digest_of, [paths[index] for index in absent])
                for done, (index, digest) in enumerate(zip(absent, hashed, strict=True), end - len(absent)):
                    digests[index] = np.frombuffer(digest or _UNREADABLE, np.uint8)
                    settled[index] &= digest is not None
                    progress.show(done, len(names))
                found[start:end] = digests
                store.add(keys[settled], digests[settled], bool(settled[absent].any()))
                progress.show(end, len(names))
        finally:
            # Where it is interrupted, what waits is not hashed to the end.
            pool.shutdown(cancel_futures=True)
            progress.close()
            store.write()
    return found


def _hash(contents):
    return hashlib.blake2b(contents, digest_size=_SIZE).digest()


_UNREADABLE = _hash(b'may not be read')


@contextlib.contextmanager
def _alone(lock):
    """Within, other processes wait that want digests of the same root, which they then find.

    Roots share 256 locks, lest the folder fill with those of roots that are no more; two seldom wait for each other.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):  # a folder that cannot be written, a disk without locks
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(hold(lock, _PATIENCE_S))
            except TimeoutError:
                print_log(f'another process reads the same data first, and holds {lock}: waiting for it', 'current')
                stack.enter_context(hold(lock))
        yield


def _keys_of(pool, paths):
    """What digests are kept under: uint64 ``(N, 2)``, and which of them may be: bool ``(N,)``."""
    keys, settled = np.zeros((len(paths), 2), np.uint64), np.zeros(len(paths), bool)
    for index, status in enumerate(pool.map(_status, paths, chunksize=64)):
        keys[index] = np.frombuffer(state_of_file(status), np.uint64)
        settled[index] = max(status.st_mtime_ns, status.st_ctime_ns) < time.time_ns() - _SETTLED_NS
    return keys, settled


def state_of_file(status: os.stat_result) -> bytes:
    """What becomes another where a file is written, replaced or renamed: 16 bytes of its number, size and times."""
    number = status.st_ino & 0xFFFFFFFFFFFFFFFF
    return _hash(struct.pack('<QQqq', number, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


def _status(path):
    try:
        return os.stat(path)
    except OSError as error:
        raise InputError(f'image {printable(path)} cannot be read: {error.strerror}') from error


def _digest_of(path):
    """The digest of a file's contents, or None where it may not be read."""
    digest = hashlib.blake2b(digest_size=_SIZE)
    try:
        with open(path, 'rb', buffering=0) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()


class _Store:
    """Digests on disk, ordered by the first half of their keys."""

    def __init__(self, place):
        self.place = place
        self.keys, self.digests = np.zeros((0, 2), np.uint64), np.zeros((0, _SIZE), np.uint8)
        self._used, self._fresh, self._written = [], False, time.monotonic()
        # A damaged file fails its checksum, and is made anew.
        with (
            contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error),
            np.load(place, allow_pickle=False) as stored,
        ):
            keys, digests = stored['keys'], stored['digests']
            if keys.shape == (len(digests), 2) and digests.shape[1:] == (_SIZE,) and keys.dtype == np.uint64:
                self.keys, self.digests = keys, digests

    def find(self, keys):
        """``(digests, known)`` of some keys."""
        digests, known = np.zeros((len(keys), _SIZE), np.uint8), np.zeros(len(keys), bool)
        if len(self.keys):
            rows = np.minimum(np.searchsorted(self.keys[:, 0], keys[:, 0]), len(self.keys) - 1)
            known = (self.keys[rows] == keys).all(1)
            digests[known] = self.digests[rows[known]]
        return digests, known

    def add(self, keys, digests, fresh):
        """Keep digests, some of them ``fresh``. Now and then they are written, so that no kill loses much."""
        self._used.append((keys, digests))
        self._fresh |= fresh
        if time.monotonic() - self._written > _STORED_EVERY_S:
            self.write()

    def write(self):
        """Write what is new, in one step; a cache folder that cannot be written keeps nothing."""
        self._written = time.monotonic()
        if not self._fresh:
            return
        used = [np.concatenate(arrays) for arrays in zip(*self._used, strict=True)]
        kept = slice(len(self.keys) if len(self.keys) + len(used[0]) <= _KEPT else 0)
        keys, rows = np.unique(np.concatenate([used[0], self.keys[kept]]), axis=0, return_index=True)
        digests = np.concatenate([used[1], self.digests[kept]])[rows]
        with contextlib.suppress(InputError), new_file(self.place) as partial, open(partial, 'wb') as file:
            np.savez(file, keys=keys, digests=digests)
        self._fresh = False
