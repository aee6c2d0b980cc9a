"""The budget of status writes: what others wait for comes first, what only informs waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Limiter:
    """So many permits a second, with two classes of callers."""

    def __init__(self, *, per_second: float, clock: Callable[[], float], burst: int = 20) -> None:
        self._interval = 1.0 / per_second
        self._burst = burst
        self._clock = clock
        self._free_at = clock()
        self._urgent = 0

    async def acquire(self, *, urgent: bool) -> None:
        """Waits for a permit; one that is not urgent lets all urgent ones go first."""
        if urgent:
            self._urgent += 1
        try:
            while True:
                now = self._clock()
                self._free_at = max(self._free_at, now - self._burst * self._interval)
                wait = self._free_at - now
                if wait <= 0 and (urgent or not self._urgent):
                    self._free_at += self._interval
                    return
                await asyncio.sleep(max(wait, self._interval))
        finally:
            if urgent:
                self._urgent -= 1
