"""Images inside archives, with random access.

The ``webdataset`` package reads shards as streams: its shuffle reaches no further than a buffer, the number of
images a process sees depends on how shards divide among processes, and a resumed run must read again what it had
passed. A plain tar file, though, can be indexed: where each member begins and how long it is. With that, shards are a
numbered set like any other.
"""

import contextlib
import hashlib
import io
import itertools
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from spark_bench.data.images.identity import file_digests, state_of_file
from spark_bench.data.images.ignored import ignored_in, say_held_out, say_passed_over
from spark_bench.data.images.listing import EXTENSIONS, is_image, no_images
from spark_bench.data.images.numbered import Source
from spark_bench.data.images.splits import held_out_folders
from spark_bench.errors import InputError, printable
from spark_bench.files import new_file
from spark_bench.places import cache_folder

_BLOCK = tarfile.BLOCKSIZE
# Zeros behind the last member, in bytes: tar pads to blocks of 10 KiB, tapes had a megabyte at most.
_MOST_PADDING = 2 << 20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
# The longest label of an image in a shard, in bytes.
LABEL_SIZE = 255


class TarShards(Source):
    """Images in uncompressed tar files, but for what is ignored, and for folders that are held out for evaluation.

    The index of a shard is kept in the cache folder, under the shard's path and :func:`state_of_file`.

    Args:
        skip_held_out: leave out those folders; otherwise all images are taken.

    Raises:
        InputError: naming the shard that is cut short, compressed or without any image.
    """

    def __init__(self, shards: Iterable[Path | str], skip_held_out: bool = True):
        self._shards = [str(shard) for shard in shards]
        names, starts, sizes = zip(*map(load_index, self._shards), strict=True)
        for shard, inside in zip(self._shards, names, strict=True):
            _demand_each_once(shard, inside)
        numbers = np.repeat(np.arange(len(names)), list(map(len, names)))
        names = list(itertools.chain(*names))
        kept = _select(self._shards[0], os.path.dirname(self._shards[0]), names, skip_held_out)
        super().__init__(names[index] for index in kept)
        # Of each image its shard, and there its start and size in bytes.
        self._places_N3 = np.stack([numbers, np.concatenate(starts), np.concatenate(sizes)], axis=1)[kept]

    def name(self, index: int) -> str:
        """``shard.tar:member``."""
        return f'{self._shards[self._places_N3[index, 0]]}:{self.names[index]}'

    def shards(self) -> list[str]:
        """The path of each image's shard."""
        return [self._shards[number] for number in self._places_N3[:, 0].tolist()]

    def samples(self) -> list[tuple[int, str]]:
        """Which sample each image is of, as webdataset joins members: those of one shard and :func:`sample_key`."""
        return list(zip(self._places_N3[:, 0].tolist(), map(sample_key, self.names), strict=True))

    def labels(self) -> list[bytes | None]:
        """What stands in the ``.cls`` beside each image, as webdataset writes it: a list of bytes, None for none."""
        labels = [load_labels(shard) for shard in self._shards]
        shards = self._places_N3[:, 0].tolist()
        return [labels[shard].get(sample_key(name)) for shard, name in zip(shards, self.names, strict=True)]

    def only(self, indices: Sequence[int] | np.ndarray) -> 'TarShards':
        chosen = super().only(indices)
        chosen._places_N3 = self._places_N3[indices]
        return chosen

    def open(self, index: int) -> BinaryIO:
        # Opened anew each time: worker processes share no position, and thousands of shards need no open files.
        shard, start, size = self._places_N3[index].tolist()
        with open(self._shards[shard], 'rb', buffering=0) as file:
            contents = os.pread(file.fileno(), size, start)
        if len(contents) < size:
            raise EOFError('truncated shard')
        return io.BytesIO(contents)

    def fingerprint(self) -> str:
        """SHA-256 over the members' names, their places and the shards' contents, hex."""
        digest = hashlib.sha256()
        used = np.unique(self._places_N3[:, 0]).tolist()
        shards = [os.path.abspath(self._shards[shard]) for shard in used]
        digests = file_digests(os.path.dirname(shards[0]), shards)
        contents = {shard: own.tobytes().hex() for shard, own in zip(used, digests, strict=True)}
        for name, (shard, start, size) in zip(self.names, self._places_N3, strict=True):
            digest.update(os.fsencode(name) + f'\0{contents[shard]}:{start}:{size}\n'.encode())
        return digest.hexdigest()


def _demand_each_once(archive, names):
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f'{archive} holds {printable(twice)} twice: make it anew, with each image once')


def _select(path, root, names, skip_held_out):
    """The indices of the members that are data, but for folders that are held out for evaluation."""
    passed = [ignored_in(name) for name in names]
    if all(passed):
        raise no_images(path, dict.fromkeys(passed))
    say_passed_over(root, filter(None, passed))
    kept = [index for index, leftover in enumerate(passed) if not leftover]
    held_out = held_out_folders(names[index] for index in kept) if skip_held_out else ()
    inside = tuple(sorted(f'{folder}/' for folder in held_out))
    say_held_out(root, inside)
    return [index for index in kept if not names[index].startswith(inside)]


def sample_key(name):
    """What webdataset joins the members of one sample by: the path up to the first dot of the file name."""
    folder, slash, own = name.rpartition('/')
    return folder + slash + own.partition('.')[0]


def load_index(shard: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """``(names, starts, sizes)`` of the images in a tar file, from the cache where it is still right."""
    return _load(shard, _stored_images)


def load_labels(shard: str) -> dict[str, bytes]:
    """The contents of a tar file's ``.cls`` members by :func:`sample_key`, from the cache where it is still right."""
    return _load(shard, _stored_labels)


def _load(shard, read):
    try:
        status = os.stat(shard)
    except OSError as error:
        raise InputError(f'{shard} cannot be read: {error.strerror}') from error
    key = os.fsencode(os.path.realpath(shard)) + state_of_file(status) + ' '.join(sorted(EXTENSIONS)).encode()
    cached = cache_folder() / 'tar-index' / f'{hashlib.sha256(key).hexdigest()[:32]}.npz'
    # A damaged index fails its checksum, and is made anew; so is one of a version that kept no labels.
    with (
        contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error),
        np.load(cached, allow_pickle=False) as stored,
    ):
        return read(stored)
    index = build_index(shard)
    with contextlib.suppress(OSError, InputError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with new_file(cached) as partial, open(partial, 'wb') as file:
            np.savez(file, **index)
    return read(index)


def _stored_images(stored):
    names = [os.fsdecode(name) for name in stored['names'].tobytes().split(b'\0')]
    if not len(names) == len(stored['starts']) == len(stored['sizes']):
        raise ValueError('names, starts and sizes differ in number')
    return names, stored['starts'], stored['sizes']


def _stored_labels(stored):
    keys, ends, joined = (stored[name].tobytes() for name in ('label_keys', 'label_ends', 'labels'))
    if not keys:
        return {}
    keys, ends = keys.split(b'\0'), np.frombuffer(ends, dtype=np.int64).tolist()
    return {os.fsdecode(key): joined[start:end] for key, start, end in zip(keys, [0, *ends], ends, strict=False)}


def build_index(shard: str) -> dict[str, np.ndarray]:
    """Read the headers of a tar file, and its labels.

    Returns:
        dict of arrays: ``names`` of the images, joined by zero bytes, their ``starts`` and ``sizes``; ``label_keys``
        likewise, and ``labels``, the contents of ``.cls`` members one behind the other, which end at ``label_ends``.

    Raises:
        InputError: where the file is no plain tar, is cut short, or holds no image.
    """
    names, starts, sizes, labels = [], [], [], {}
    try:
        with open(shard, 'rb') as file, tarfile.open(fileobj=file, mode='r:') as tar:
            while (member := tar.next()) is not None:
                # tarfile would keep them, a kilobyte each.
                tar.members.clear()  # type: ignore[attr-defined]  # the stubs of tarfile leave it out
                if not _holds_contents(shard, member):
                    continue
                if '\0' in member.name:
                    raise ValueError('a name holds a zero byte')
                if is_image(member.name):
                    names.append(member.name)
                    starts.append(member.offset_data)
                    sizes.append(member.size)
                elif member.name.rpartition('/')[2].partition('.')[2].lower() == 'cls':
                    # One byte more than any label has tells one that is too long.
                    labels[sample_key(member.name)] = os.pread(
                        file.fileno(), min(member.size, LABEL_SIZE + 1), member.offset_data
                    )
            _demand_end(shard, file, tar.offset, len(names))
    except InputError:
        raise
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(
            f'{shard} is not an uncompressed tar file ({error}): copy it again, or unpack it to a plain .tar'
        ) from error
    except OSError as error:
        raise InputError(f'{shard} cannot be read: {error.strerror}') from error
    if not names:
        raise no_images(shard)
    return {
        'names': _joined(map(os.fsencode, names), b'\0'),
        'starts': np.array(starts, dtype=np.int64),
        'sizes': np.array(sizes, dtype=np.int64),
        'label_keys': _joined(map(os.fsencode, labels), b'\0'),
        'labels': _joined(labels.values(), b''),
        'label_ends': np.cumsum([len(label) for label in labels.values()], dtype=np.int64),
    }


def _demand_end(shard, file, end, count):
    """See that an archive ends where tarfile stopped, in blocks of zeros, and that nothing comes behind them."""
    file.seek(end)
    # It ends silently at a header that it cannot read.
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise InputError(f'{shard} is cut short or damaged after {count} images: copy it again')
    if any(any(block) for block in iter(lambda: file.read(1 << 20), b'')):
        raise InputError(
            f'{shard} goes on behind the end of its archive: give each of several tar files a file of its own'
        )
    if file.tell() - end > _MOST_PADDING:
        raise InputError(
            f'{shard} ends after {count} images in {file.tell() - end:,} bytes of zeros, as a copy that was broken off '
            'does: copy it again'
        )


def _holds_contents(shard, member):
    """Whether a member is a file with its contents; raises InputError for an image that is a link, or stored sparse."""
    if (member.islnk() or member.issym()) and is_image(member.name):
        raise InputError(
            f'{shard}: {member.name} is a link, not an image: make the archive with tar --dereference '
            '--hard-dereference'
        )
    if member.issparse() and is_image(member.name):
        raise InputError(f'{shard}: {member.name} is stored sparse: make the archive with tar without --sparse (-S)')
    return member.isreg() and not member.issparse()


def _demand_readable(path, entries):
    for entry in entries:
        if entry.flag_bits & 1:
            raise InputError(f'{path}: {entry.filename} is encrypted: unpack it with its password, and pack it without')
        if entry.compress_type not in _COMPRESSIONS:
            raise InputError(
                f'{path}: {entry.filename} is compressed by a method that Python does not read (number '
                f'{entry.compress_type}; 9 is Deflate64 of Windows): unpack it, and pack it again with zip -r'
            )


def _joined(parts, separator):
    return np.frombuffer(separator.join(parts), dtype=np.uint8)


class ZipArchive(Source):
    """Images in a zip file, but for what is ignored, and for folders that are held out for evaluation.

    Args:
        skip_held_out: leave out those folders; otherwise all images are taken.

    Raises:
        InputError: where the file is not a whole zip archive or holds no image.
    """

    def __init__(self, path: Path | str, skip_held_out: bool = True):
        self.path = str(path)
        self._archive, self._owner = None, None
        try:
            entries = [entry for entry in self._opened().infolist() if is_image(entry.filename) and not entry.is_dir()]
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise InputError(f'{path} is not a whole zip archive ({error}): copy it again') from error
        except OSError as error:
            raise InputError(f'{path} cannot be read: {error.strerror}') from error
        _demand_readable(path, entries)
        # Some programs of Windows part folders by what may be part of a name elsewhere.
        names = [entry.filename if '/' in entry.filename else entry.filename.replace('\\', '/') for entry in entries]
        self._written = {name: e.filename for name, e in zip(names, entries, strict=True) if name != e.filename}
        _demand_each_once(path, names)
        kept = _select(path, path, names, skip_held_out)
        super().__init__(names[index] for index in kept)
        # Of each image its size in bytes and its checksum.
        self._checks_N2 = np.array([(entries[index].file_size, entries[index].CRC) for index in kept], dtype=np.int64)

    def _opened(self):
        # A handle keeps a position in the file: each process needs one of its own.
        if self._owner != os.getpid():
            self._archive, self._owner = zipfile.ZipFile(self.path), os.getpid()
        return self._archive

    def __getstate__(self):
        return {**self.__dict__, '_archive': None, '_owner': None}

    def name(self, index: int) -> str:
        """``archive.zip:member``."""
        return f'{self.path}:{self.names[index]}'

    def only(self, indices: Sequence[int] | np.ndarray) -> 'ZipArchive':
        chosen = super().only(indices)
        chosen._checks_N2 = self._checks_N2[indices]
        return chosen

    def open(self, index: int) -> BinaryIO:
        name = self.names[index]
        return io.BytesIO(self._opened().read(self._written.get(name, name)))

    def fingerprint(self) -> str:
        """SHA-256 over the members' names, sizes and checksums, hex."""
        digest = hashlib.sha256()
        for name, (size, crc) in zip(self.names, self._checks_N2, strict=True):
            digest.update(os.fsencode(name) + f'\0{size}\0{crc}\n'.encode())
        return digest.hexdigest()
