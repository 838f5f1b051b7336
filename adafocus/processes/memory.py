"""Whether the process keeps freed memory for its next tensors, or returns it to the system after every operation."""

from __future__ import annotations

import ctypes
import os

#: Parameters of mallopt in glibc's malloc.h with the values that keep freed memory.
_KEEP = {
    -4: 0,  # M_MMAP_MAX: no memory maps of their own for large blocks, which are unmapped as soon as they are free
    -1: -1,  # M_TRIM_THRESHOLD: never shrink the heap
    -2: 64 * 2**20,  # M_TOP_PAD: let it grow by at least 64 MB
}
#: glibc's defaults.
_RETURN = {-4: 65536, -1: 128 * 1024, -2: 0}


def keep_freed_memory(keep: bool = True) -> bool:
    """Sets the allocator of this process and of those that it forks; returns whether that was possible.

    By default glibc returns the memory of large tensors to the system as soon as they are freed. Then each operation
    of a network on a CPU first has to wait until the system has cleared new pages for its output. Variables
    MALLOC_... of the environment have priority. Other C libraries than glibc do not have this setting.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows needs a name
        return False
    done = [mallopt(parameter, value) for parameter, value in (_KEEP if keep else _RETURN).items()]
    return all(done)
