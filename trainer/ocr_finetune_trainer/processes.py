"""Processes that end with those who started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


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
