"""Tell glibc to keep freed memory and to use huge pages."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # of glibc's mallopt

TOP_PAD_BYTES = 2**28  # bytes asked for at a time


def retain_freed_memory() -> None:
    """Keeps what is freed, in large pages, for as long as this process lives: on a CPU a step is faster; docs/performance.md.

    A step's buffers of some megabytes are otherwise given back to the system and asked for again, page by page. To be
    called before the first tensor. Nothing happens where the C library is not glibc.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it once
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for setting, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, TOP_PAD_BYTES)):
            library.mallopt(setting, value)
