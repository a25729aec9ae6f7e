"""Opening many pictures in several processes, within bounded memory."""

import hashlib
import os
import signal
import stat
import sys
import time
import warnings
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

from PIL import Image

from spark_bench.data.decoding import explain
from spark_bench.errors import RunError

# Of SHA-256, in bytes: enough to tell any number of pictures apart.
DIGEST_SIZE = 16
_CHUNK, _WAITING, _BLOCK = 32, 4, 1 << 20
# Tag of EXIF; from 5 on, a viewer swaps width and height.
_ORIENTATION, _TURNED = 274, 5


class Look(NamedTuple):
    """What one picture is.

    Attributes:
        wrong: what is wrong with it, or empty; then the rest says nothing.
        size: (width, height) as stored.
        mode: Pillow's.
        turned: whether EXIF asks to swap width and height.
        digest: of the file's contents, or empty where it was not decoded.
    """

    wrong: str = ''
    size: tuple = (0, 0)
    mode: str = ''
    turned: bool = False
    digest: bytes = b''


class Progress:
    """Tells on standard error how far it is: on a terminal twice a second, elsewhere every half minute."""

    def __init__(self):
        self._live = sys.stderr.isatty()
        self._last = self._start = time.monotonic()

    def show(self, done, total):
        """``done`` of ``total`` pictures."""
        now = time.monotonic()
        if now - self._last < (0.5 if self._live else 30):
            return
        self._last = now
        text = f'{done:,} of {total:,} pictures, {done / (now - self._start):,.0f} a second'
        print(f'\r{text}\033[K' if self._live else text, end='' if self._live else '\n', file=sys.stderr, flush=True)

    def close(self):
        """Wipe the line."""
        if self._live:
            print('\r\033[K', end='', file=sys.stderr, flush=True)


def look_at(path, decode):
    """Open a picture; with ``decode``, decode all of it and hash its file. Returns :class:`Look`; raises nothing."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return Look('is a folder or a device, not a file')
        with open(path, 'rb') as file, warnings.catch_warnings():
            warnings.simplefilter('ignore')
            digest = _digest(file) if decode else b''
            with Image.open(file) as picture:
                size, mode = picture.size, picture.mode
                if decode:
                    picture.load()
                return Look('', size, mode, _is_turned(picture), digest)
    except Exception as error:  # noqa: BLE001 - decoders raise anything at broken input
        return Look(explain(error)[0])


def _digest(file):
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    file.seek(0)
    return digest.digest()[:DIGEST_SIZE]


def _is_turned(picture):
    try:
        # Of other formats, Pillow may have to decode the whole picture first.
        return picture.format == 'JPEG' and picture.getexif().get(_ORIENTATION, 1) >= _TURNED
    except Exception:  # noqa: BLE001 - a broken EXIF block is no fault of the picture
        return False


def look_at_all(root, names, decode, workers, progress):
    """Look at many pictures.

    Args:
        root: folder.
        names: sequence of paths relative to it.
        decode: see :func:`look_at`.
        workers: processes.
        progress: :class:`Progress`.

    Yields:
        ``(index, Look)`` in the order of ``names``.

    Raises:
        RunError: where a process was killed, as for want of memory.
    """
    root, total = str(root), len(names)
    if workers == 1 or total <= _CHUNK:
        for index in range(total):
            yield index, look_at(os.path.join(root, names[index]), decode)
            progress.show(index + 1, total)
        progress.close()
        return
    starts, waiting = iter(range(0, total, _CHUNK)), deque()
    pool = ProcessPoolExecutor(min(workers, -(-total // _CHUNK)), get_context('fork'), _ignore_interrupts)
    try:
        while True:
            for start in starts:
                paths = [os.path.join(root, names[index]) for index in range(start, min(start + _CHUNK, total))]
                waiting.append((start, pool.submit(_look_at_some, paths, decode)))
                if len(waiting) >= _WAITING * workers:
                    break
            if not waiting:
                break
            start, future = waiting.popleft()
            yield from enumerate(future.result(), start)
            progress.show(min(start + _CHUNK, total), total)
    except BrokenProcessPool as error:
        raise RunError(f'a process that decoded pictures was killed, near {os.path.join(root, names[start])}: is there '
                       'enough memory? Try --workers 1') from error
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()


def _look_at_some(paths, decode):
    return [look_at(path, decode) for path in paths]


def _ignore_interrupts():
    # The main process ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
