"""The work queue: each run at most once in it, at most one worker on a run, and failures come back later and later."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """Keys with the time they are due at.

    An event that comes while a worker is busy with its key is not lost: the key comes again when the worker is done.
    """

    def __init__(self, *, clock: Callable[[], float], first_delay: float = 0.2, longest_delay: float = 60.0) -> None:
        self._clock = clock
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._heap: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._order = itertools.count()
        self._wake = asyncio.Event()

    def add(self, key: Key, *, delay: float = 0.0) -> None:
        """Asks for work on a key, in `delay` seconds at the latest."""
        due = self._clock() + max(delay, 0.0)
        waiting = self._again if key in self._busy else self._due
        if key in waiting and waiting[key] <= due:
            return
        waiting[key] = due
        if key not in self._busy:
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._wake.set()

    async def take(self) -> tuple[Key, float]:
        """Waits for a key that is due; nobody else gets it until `done` or `failed`.

        Returns:
            The key, and for how many seconds it has been due.
        """
        while True:
            self._wake.clear()
            wait = self._next_wait()
            if wait is not None and wait <= 0:
                due, _, key = heapq.heappop(self._heap)
                if self._due.get(key) != due:
                    continue  # asked for earlier in the meantime
                del self._due[key]
                self._busy.add(key)
                return key, self._clock() - due
            try:
                await asyncio.wait_for(self._wake.wait(), timeout=wait)
            except TimeoutError:
                continue

    def done(self, key: Key, *, again_in: float | None = None) -> None:
        """Says that the work on a key is done, and when it is worth another look."""
        self._failures.pop(key, None)
        self._release(key, again_in)

    def failed(self, key: Key, *, at_least: float = 0.0) -> float:
        """Says that the work on a key failed; it comes back later.

        Returns:
            In how many seconds.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay: float = min(self._first_delay * 2**failures, self._longest_delay) * random.uniform(0.8, 1.2)
        delay = max(delay, at_least)
        # What came in the meantime does not make it earlier: the API server may be what fails.
        self._again.pop(key, None)
        self._release(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Drops a key that is not worked on."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    @property
    def depth(self) -> int:
        """How many keys are due and wait."""
        now = self._clock()
        return sum(1 for due in self._due.values() if due <= now)

    @property
    def age(self) -> float:
        """For how many seconds the oldest of them has waited."""
        oldest = min(self._due.values(), default=None)
        return max(self._clock() - oldest, 0.0) if oldest is not None else 0.0

    def _next_wait(self) -> float | None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] - self._clock() if self._heap else None

    def _release(self, key: Key, delay: float | None) -> None:
        self._busy.discard(key)
        again = self._again.pop(key, None)
        if delay is not None:
            self.add(key, delay=delay)
        if again is not None:
            self.add(key, delay=again - self._clock())
        self._wake.set()
