"""Processes that end with those who started them, and do not give memory back that they need again at once."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20  # bytes of an allocation; the most that glibc allows here


def end_with_parent(number: int = signal.SIGTERM, *, parent: int | None = None) -> None:
    """Asks the kernel for a signal when the parent of this process is gone, however it went.

    Args:
        number: The signal.
        parent: Process id of the parent as it knew it; if it is gone already, the signal is sent at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def keep_memory() -> None:
    """Keeps what is freed for the next allocation, up to 128 MiB, where the C library is glibc.

    A process that opens pictures asks for the same few megabytes again and again. glibc returns them to the kernel each
    time, and clearing them anew costs a third of the time of decoding a page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if sys.platform == "linux" and mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, 4 * _LARGEST)


@contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """Leaves reference cycles alone for a while.

    Python looks for them whenever some hundred objects were made. Among the records of a data set there are none to be
    found, and looking at each of them again and again costs a tenth of the time of reading and sending them.
    """
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searched:
            gc.enable()
