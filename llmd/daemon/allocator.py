"""Settings of the C library's memory allocator: what the daemon frees goes back to the system."""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger(__name__)

# The parameters of glibc's mallopt(), from <malloc.h>.
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

MMAP_THRESHOLD_BYTES = 256 * 1024
"""Blocks of at least this size are mapped one by one, and unmapped when they are freed.

glibc begins with half of it, but raises its threshold to the size of any mapped block that is
freed. After the first check of a key, the 19 MiB that Argon2 needs therefore came from the arena of
the thread that checked, and stayed there: 480 new keys took the daemon from 65 to 543 MB.
"""

MAX_ARENAS = 2
"""The number of arenas from which all threads allocate.

glibc makes up to eight for each core, and each keeps what its threads once needed. Python's threads
hardly allocate at the same time, because of the GIL.
"""


def return_freed_memory() -> None:
    """Make the allocator give freed memory back. Call it before any thread is started."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        log.debug("the C library has no mallopt(): freed memory may stay with the process")
        return
    mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    mallopt(_M_ARENA_MAX, MAX_ARENAS)
