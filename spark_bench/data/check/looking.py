"""Opening many images in several processes, within bounded memory."""

import hashlib
import os
import signal
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from spark_bench.data.check.report import Report
from spark_bench.data.coco.near_names import NearNames, probably
from spark_bench.data.images.bit_depth import UnplainError
from spark_bench.data.images.decoding import decode, explain, is_stated_as_stored
from spark_bench.data.images.progress import Progress
from spark_bench.errors import RunError

# Of SHA-256, in bytes: enough to tell any number of images apart.
DIGEST_SIZE = 16
_CHUNK, _WAITING, _BLOCK = 32, 4, 1 << 20


class Look(NamedTuple):
    """What one image is.

    Attributes:
        wrong: what is wrong with it, or empty; then the rest says nothing.
        kind: of the report, of what is wrong.
        size: (width, height) upright.
        stored_size: (width, height) as stored.
        turned: whether EXIF turns it.
        mode: Pillow's.
        scaled: how its values became 8 bits, or empty; known where it was decoded.
        digest: of the file's contents, or empty where it was not decoded.
    """

    wrong: str = ''
    kind: str = 'image'
    size: tuple = (0, 0)
    stored_size: tuple = (0, 0)
    turned: bool = False
    mode: str = ''
    scaled: str = ''
    digest: bytes = b''


def look_at(path: Path | str, pixels: bool) -> Look:
    """Open an image as training does; with ``pixels``, decode all of it and hash its file.

    Returns :class:`Look`; raises nothing.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return Look('is a folder or a device, not a file')
        with open(path, 'rb') as file:
            digest = _digest(file) if pixels else b''
            found = decode(file, pixels)
            return Look(size=found.size, stored_size=found.stored_size, turned=found.turned, mode=found.mode,
                        scaled=found.scaled, digest=digest)
    except FileNotFoundError as error:
        return Look(explain(error)[0], 'absent')
    except Exception as error:  # noqa: BLE001 - decoders raise anything at broken input
        return Look(explain(error)[0], 'values' if isinstance(error, UnplainError) else 'image')


def judge(report: Report, name: str, look: Look, stated: tuple[int, int] | None = None,
          near: NearNames | None = None) -> None:
    """Tell the report what an image is.

    Args:
        report: :class:`~spark_bench.data.check.report.Report`.
        name: of the image, relative to the root.
        look: :class:`Look`.
        stated: (width, height) that annotations state, where there are any.
        near: :class:`~spark_bench.data.coco.near_names.NearNames` of the folder that the annotations name files in.
    """
    if look.wrong:
        meant = probably(near, name.partition('/')[2]) if near and look.kind == 'absent' else ''
        report.add(look.kind, name, f'is not there{meant}' if look.kind == 'absent' else look.wrong)
        return
    if stated is not None and look.size != stated:
        (width, height), as_stored = look.size, is_stated_as_stored(look.size, look.stored_size, stated)
        report.add('size as stored' if as_stored else 'size', name,
                   f'is {width}x{height}{" upright" if as_stored else ""}, stated as {stated[0]}x{stated[1]}')
    if look.turned:
        report.add('turned', name)
    if look.scaled:
        report.add('scaled', name, look.scaled)
    elif look.mode != 'RGB':
        report.add('colours', name, look.mode)


def _digest(file):
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    file.seek(0)
    return digest.digest()[:DIGEST_SIZE]


def look_at_all(root: Path | str, names: Sequence[str], pixels: bool, workers: int, progress: Progress
                ) -> Iterator[tuple[int, Look]]:
    """Look at many images.

    Args:
        root: folder.
        names: sequence of paths relative to it.
        pixels: see :func:`look_at`.
        workers: processes.
        progress: :class:`~spark_bench.data.images.progress.Progress`.

    Yields:
        ``(index, Look)`` in the order of ``names``.

    Raises:
        RunError: where a process was killed, as for want of memory.
    """
    root, total = str(root), len(names)
    if workers == 1 or total <= _CHUNK:
        for index in range(total):
            yield index, look_at(os.path.join(root, names[index]), pixels)
            progress.show(index + 1, total)
        progress.close()
        return
    starts = iter(range(0, total, _CHUNK))
    waiting: deque[tuple[int, Future[list[Look]]]] = deque()
    pool = ProcessPoolExecutor(min(workers, -(-total // _CHUNK)), get_context('fork'), _ignore_interrupts)
    try:
        while True:
            for start in starts:
                paths = [os.path.join(root, names[index]) for index in range(start, min(start + _CHUNK, total))]
                waiting.append((start, pool.submit(_look_at_some, paths, pixels)))
                if len(waiting) >= _WAITING * workers:
                    break
            if not waiting:
                break
            start, future = waiting.popleft()
            yield from enumerate(future.result(), start)
            progress.show(min(start + _CHUNK, total), total)
    except BrokenProcessPool as error:
        raise RunError(f'a process that decoded images was killed, near {os.path.join(root, names[start])}: is there '
                       'enough memory? Try --workers 1') from error
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()


def _look_at_some(paths, pixels):
    return [look_at(path, pixels) for path in paths]


def _ignore_interrupts():
    # The main process ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
