"""Checking images: opening many of them in several processes, within bounded memory, and telling what each is."""

import hashlib
import os
import signal
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from spark_bench.data.check.report import Report
from spark_bench.data.coco.near_names import NearNames, probably
from spark_bench.data.images.bit_depth import UnplainError
from spark_bench.data.images.decoding import Decoded, decode, explain
from spark_bench.data.images.progress import Progress
from spark_bench.errors import RunError

# Of SHA-256, in bytes: enough to tell any number of images apart.
DIGEST_SIZE = 16
_CHUNK, _WAITING, _BLOCK = 32, 4, 1 << 20


class Look(NamedTuple):
    """What one image is.

    Attributes:
        found: the image without its pixels, or None where something is wrong with it.
        digest: of the file's contents, or empty where it was not decoded.
        wrong: what is wrong with it, or empty.
        remedy: against that, where that of the kind is not meant.
        kind: of the report, of what is wrong.
    """

    found: Decoded | None = None
    digest: bytes = b''
    wrong: str = ''
    remedy: str = ''
    kind: str = 'image'


def look_at(path: Path | str, pixels: bool) -> Look:
    """Open an image as training does; with ``pixels``, decode all of it and hash its file. Raises nothing."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return Look(wrong='is a folder or a device, not a file')
        with open(path, 'rb') as file:
            digest = _digest(file) if pixels else b''
            return Look(decode(file, pixels)._replace(image=None), digest)
    except FileNotFoundError as error:
        return Look(wrong=explain(error)[0], kind='absent')
    except Exception as error:  # noqa: BLE001 - decoders raise anything at broken input
        return Look(None, b'', *explain(error), 'values' if isinstance(error, UnplainError) else 'image')


def judge(
    report: Report, name: str, look: Look, stated: tuple[int, int] | None = None, near: NearNames | None = None
) -> None:
    """Tell the report what an image is.

    Args:
        name: of the image, relative to the root.
        stated: (width, height) that annotations state, where there are any.
        near: the names in the folder that the annotations name files in.
    """
    found = look.found
    if found is None:
        meant = probably(near, name.partition('/')[2]) if near and look.kind == 'absent' else ''
        report.add(look.kind, name, f'is not there{meant}' if look.kind == 'absent' else look.wrong, look.remedy)
        return
    if stated is not None and found.size != stated:
        (width, height), as_stored = found.size, found.is_stored_as(stated)
        report.add(
            'size as stored' if as_stored else 'size',
            name,
            f'is {width}x{height}{" upright" if as_stored else ""}, stated as {stated[0]}x{stated[1]}',
        )
    if found.turned:
        report.add('turned', name)
    if found.scaled:
        report.add('scaled', name, found.scaled)
    elif found.mode != 'RGB':
        report.add('colours', name, found.mode)


def _digest(file):
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    file.seek(0)
    return digest.digest()[:DIGEST_SIZE]


def look_at_all(report: Report, names: Sequence[str], workers: int) -> Iterator[tuple[int, Look]]:
    """Look at many images below the report's root, as completely as it says, in so many processes.

    Yields:
        ``(index, Look)`` in the order of ``names``.

    Raises:
        RunError: where a process was killed, as for want of memory.
    """
    root, total, done, progress = str(report.root), len(names), 0, Progress()
    chunks = (
        [os.path.join(root, names[index]) for index in range(start, min(start + _CHUNK, total))]
        for start in range(0, total, _CHUNK)
    )
    look = partial(_look_at_some, pixels=report.decoded)
    workers = min(workers, -(-total // _CHUNK))
    try:
        for looks in _map_in_processes(look, chunks, workers) if workers > 1 else map(look, chunks):
            yield from enumerate(looks, done)
            done += len(looks)
            progress.show(done, total)
    except BrokenProcessPool as error:
        raise RunError(
            f'a process that decoded images was killed, near {os.path.join(root, names[done])}: is there '
            'enough memory? Try --workers 1'
        ) from error
    finally:
        progress.close()


def _map_in_processes(
    function: Callable[[list[str]], list[Look]], chunks: Iterable[list[str]], workers: int
) -> Iterator[list[Look]]:
    """Like ``map``, a few chunks ahead of what was taken."""
    waiting: deque[Future[list[Look]]] = deque()
    pool = ProcessPoolExecutor(workers, get_context('fork'), _ignore_interrupts)
    try:
        for chunk in chunks:
            waiting.append(pool.submit(function, chunk))
            if len(waiting) == _WAITING * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _look_at_some(paths, pixels):
    return [look_at(path, pixels) for path in paths]


def _ignore_interrupts():
    # The main process ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
