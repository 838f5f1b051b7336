"""Sets whether the process keeps freed memory for its next tensors or returns it to the operating system."""

from __future__ import annotations

import ctypes
import os

#: Parameters of mallopt (glibc's malloc.h) -> values with which freed memory is kept.
_KEEP = {
    -4: 0,  # M_MMAP_MAX: no separate memory maps for large blocks, which are unmapped as soon as they are freed
    -1: -1,  # M_TRIM_THRESHOLD: never shrink the heap
    -2: 64 * 2**20,  # M_TOP_PAD: grow the heap by at least 64 MB
}
#: The same parameters -> glibc's default values.
_RETURN = {-4: 65536, -1: 128 * 1024, -2: 0}


def keep_freed_memory(keep: bool = True) -> bool:
    """Sets the allocator of this process and of those that it forks; returns whether that was possible.

    By default glibc returns the memory of large tensors to the system as soon as they are freed, so that each operation
    of a network on a CPU has to wait for new pages. Environment variables MALLOC_... have priority. C libraries other
    than glibc do not have this setting.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError on Windows, where the library needs a name
        return False
    done = [mallopt(parameter, value) for parameter, value in (_KEEP if keep else _RETURN).items()]
    return all(done)
