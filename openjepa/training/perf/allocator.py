"""Tell glibc to keep freed memory and to use huge pages."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # option numbers of glibc's mallopt

TOP_PAD_BYTES = 2**28  # bytes by which the heap grows at a time


def retain_freed_memory() -> None:
    """Keep freed memory, in huge pages, for the life of this process: CPU steps are faster.

    How much: docs/results/performance.md.
    Otherwise a step's buffers of some megabytes are returned to the system and requested again, page by page. Call it
    before the first tensor is created. Does nothing if the C library is not glibc.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it once
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "mallopt"):
        for setting, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, TOP_PAD_BYTES)):
            library.mallopt(setting, value)
