"""Processes that open pictures, one a core, shared by all sources of a run."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Self, TypeVar

import cv2

from ocr_finetune_trainer.processes import end_with_parent, keep_memory

__all__ = ["PictureProcesses"]

_T = TypeVar("_T")


class PictureProcesses:
    """A pool of processes, started by the first source that has work for more than one.

    Attributes:
        count: How many there are; with 1 the process that asks does the work itself.
    """

    def __init__(self, count: int) -> None:
        """Starts nothing yet."""
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts them, unless they run; they import what they need while this process goes on."""
        if self.count > 1 and self._pool is None:
            # Spawned, not forked: the stage has a thread that reports progress, and a fork would copy its locks.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_begin)
            self._pool.submit(int)  # the pool starts its processes when it is first asked for something

    def submit(self, work: Callable[..., _T], *args: Any) -> Future[_T]:
        """Has one of them do something, starting them if need be."""
        self.start()
        assert self._pool is not None, "with a count of 1 there are none"
        return self._pool.submit(work, *args)

    def stop(self) -> None:
        """Ends them, when each has finished what it does."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _begin() -> None:
    """What each of them does first."""
    end_with_parent()
    keep_memory()
    gc.disable()  # as `no_search_for_cycles` says; these processes do nothing else
    cv2.setNumThreads(1)  # there is a process for each core already
