"""Has the C library give memory back: a segment's buffers must not stay ours when the segment is done."""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
"""Each thread would have a heap of its own, and keep what it freed there."""
_LARGE = 1024 * 1024
"""Bytes from which a buffer is mapped by itself; glibc would go up to 32 MiB as it watches us.

Much less makes the system clear memory anew for every chunk of a blob, which was 20 us a line.
"""
_SPARE = 8 * 1024 * 1024
"""Bytes that a heap may keep at its end."""


def bound_heap() -> bool:
    """Once, before threads start; False where the C library is not glibc, which is no reason to stop."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_ARENA_MAX, _ARENAS), (_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _SPARE))
    return all(mallopt(name, value) == 1 for name, value in settings)
