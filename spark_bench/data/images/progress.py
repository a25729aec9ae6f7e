"""Telling how far a long look at many images is."""

import sys
import time


class Progress:
    """Tells on standard error how many of ``what`` are done: on a terminal twice a second, else every half minute."""

    def __init__(self, what: str = 'images'):
        self._what = what
        self._live = sys.stderr.isatty()
        self._last = self._start = time.monotonic()

    def show(self, done: int, total: int) -> None:
        """``done`` of ``total``."""
        now = time.monotonic()
        if now - self._last < (0.5 if self._live else 30):
            return
        self._last = now
        text = f'{done:,} of {total:,} {self._what}, {done / (now - self._start):,.0f} a second'
        print(f'\r{text}\033[K' if self._live else text, end='' if self._live else '\n', file=sys.stderr, flush=True)

    def close(self) -> None:
        """Wipe the line."""
        if self._live:
            print('\r\033[K', end='', file=sys.stderr, flush=True)
