"""A profile of some steps when somebody asks for one, while training goes on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocr_finetune_trainer.training.pulse import Pulse

__all__ = ["Profiling"]

logger = logging.getLogger(__name__)

STEPS = 10


class Profiling:
    """Watches for a request (`kill -USR1`, `POST /profile`), and writes a trace of the steps that follow it.

    The trace is in Chrome's format: open it at `chrome://tracing` or with Perfetto.
    """

    def __init__(self, folder: Path, *, pulse: Pulse, gpu: bool) -> None:
        """Starts nothing yet.

        Args:
            folder: Where traces go.
            pulse: Carries the request.
            gpu: Whether the device is to be traced too.
        """
        self._folder = folder
        self._pulse = pulse
        self._gpu = gpu
        self._running: Any = None
        self._left = 0

    def step(self, step: int) -> Path | None:
        """To be called after each step; the trace that has just been written, if any."""
        if self._running is not None:
            self._left -= 1
            return self._finish(step) if self._left <= 0 else None
        if self._pulse.profile.is_set():
            self._begin()
        return None

    def _begin(self) -> None:
        from paddle import profiler

        targets = [profiler.ProfilerTarget.CPU] + ([profiler.ProfilerTarget.GPU] if self._gpu else [])
        # Unless told otherwise, Paddle also writes into the current folder, which is read-only in a container.
        self._running = profiler.Profiler(targets=targets, timer_only=False, on_trace_ready=lambda _: None)
        self._running.start()
        self._left = STEPS
        logger.info("profiling the next %d steps", STEPS)

    def _finish(self, step: int) -> Path | None:
        running, self._running = self._running, None
        self._pulse.profile.clear()
        path = self._folder / f"steps-{step - STEPS}-{step}.rank-{self._pulse.state.rank}.json"
        running.stop()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            running.export(path=str(path), format="json")
        except OSError as error:
            logger.warning("the profile could not be written: %s", error)
            return None
        logger.info("the profile is in %s", path)
        return path
