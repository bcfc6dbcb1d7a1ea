"""Freed memory kept by the process, in worker processes.

Training frees every buffer of an update and asks for the same again in the next. glibc
gives large ones back to the system, which then clears each page anew: a third to a half
of the seconds of a convolution of 512 images on one core.
"""

import ctypes
import sys
from contextlib import suppress

# Parameters of mallopt(3), and the largest values that it takes: any, and in older
# releases of glibc 32 MiB for the second.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST, _MOST_ONCE = 2**31 - 1, 2**25


def keep_freed_memory() -> bool:
    """Tell the process's allocator to keep what is freed, for the process's life.

    It is for worker processes alone: where step times are measured, or held against a
    plan, a step must be as fast as in a user's own loop.

    Returns:
        Whether it was told; only glibc can be.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):
        tell = ctypes.CDLL(None).mallopt
        # A trim threshold alone would end glibc's own adapting: worse than nothing.
        if tell(_M_MMAP_THRESHOLD, _MOST) or tell(_M_MMAP_THRESHOLD, _MOST_ONCE):
            return bool(tell(_M_TRIM_THRESHOLD, _MOST))
    return False
