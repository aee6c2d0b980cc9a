"""How far reading the data of a run is: one bar for all its sources, those that are copied here first among them."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["ReadingProgress", "Tell"]

Tell = Callable[[float, str], None]
"""Called with the share of the work that is done, 0 to 1, and what is being done."""

_COPYING = 0.5  # of the work on a source that has to be copied here, or drawn


class ReadingProgress:
    """Counts what is done, and tells of it.

    How large a source is shows when it is opened, so each has an equal share of the work: the bar never goes back.
    """

    def __init__(self, tell: Tell, *, sources: int) -> None:
        """Nothing is told yet.

        Args:
            tell: Whom to tell.
            sources: How many sources there are.
        """
        self._tell = tell
        self._sources = max(sources, 1)
        self._lock = threading.Lock()  # copies are made by several threads
        self._finished = 0
        self._name = ""
        self._copied = 0.0
        self._expected = 0
        self._examined = 0
        self._before = 0

    def begin(self, name: str) -> None:
        """The next source."""
        self._name, self._copied, self._expected, self._examined = name, 0.0, 0, 0
        self._say(f"opening {name}")

    def copy(self, done: int, total: int) -> None:
        """So many bytes of the source are on this machine; a total of 0 is unknown."""
        with self._lock:
            self._copied = max(self._copied, min(done / total, 1.0) if total else 0.0)
            of = f" of {total / 2**20:,.0f}" if total else ""
            self._say(f"copying {self._name}: {done / 2**20:,.0f}{of} MiB")

    def draw(self, done: int, total: int) -> None:
        """So many lines of the source are drawn."""
        self._copied = max(self._copied, done / max(total, 1))
        self._say(f"drawing {self._name}: {done:,} of {total:,} lines")

    def expect(self, pictures: int) -> None:
        """About so many pictures are in the source."""
        self._expected = pictures

    def examine(self, count: int) -> None:
        """So many more pictures have been examined."""
        self._examined += count
        self._say(f"{self._before + self._examined:,} pictures examined")

    def end(self) -> None:
        """The source has been read, or can't be."""
        self._finished += 1
        self._before += self._examined
        self._copied, self._expected, self._examined = 0.0, 0, 0
        self._say(f"{self._before:,} pictures examined")

    def _say(self, what: str) -> None:
        examined = min(self._examined / self._expected, 1.0) if self._expected else 0.0
        copied = _COPYING * self._copied
        self._tell(min((self._finished + copied + (1.0 - copied) * examined) / self._sources, 1.0), what)
