"""How the C library hands out memory in this process: large blocks are kept and used again, in huge pages.

A pass allocates and frees the same hundreds of tensors as the one before it. Without this the C library gives each back
to the system, which must zero 4 KiB pages anew when they are touched: a fifth of a forward pass on 2 cores.
"""

import ctypes
import os
import sys
from contextlib import suppress

LARGEST_KEPT = (2**29, 2**25)
"""Bytes of the largest block that is kept: the logits of a microbatch, or what an older C library still takes."""
KEPT = -1
"""Bytes of free memory at the end of the heap that are kept: -1 is all."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h."""
CHOICES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Variables by which a user chooses; then nothing is changed."""


def keep_memory() -> None:
    """Keep freed memory for this process, on Linux with glibc; called before torch is imported, also in huge pages."""
    if not sys.platform.startswith("linux") or any(name in os.environ for name in CHOICES):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it at its first allocation
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        if any(mallopt(_MMAP_THRESHOLD, size) for size in LARGEST_KEPT):
            mallopt(_TRIM_THRESHOLD, KEPT)
