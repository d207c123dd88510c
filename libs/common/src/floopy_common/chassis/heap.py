"""Has the C library give memory back: a buffer must not stay ours when what it was for is done."""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
"""Each thread would have a heap of its own, and keep what it freed there."""
LARGE = 4 * 1024 * 1024
"""Less makes the system clear memory anew for every message: a page costs a virtual machine some 2 us."""
SPARE = 32 * 1024 * 1024


def bound_heap(large: int = LARGE, spare: int = SPARE) -> bool:
    """Once, before threads start; False where the C library is not glibc, which is no reason to stop.

    `large`: bytes from which a buffer is mapped by itself; glibc would go up to 32 MiB as it watches us.
    `spare`: bytes that a heap may keep at its end.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_ARENA_MAX, _ARENAS), (_M_MMAP_THRESHOLD, large), (_M_TRIM_THRESHOLD, spare))
    return all(mallopt(name, value) == 1 for name, value in settings)
