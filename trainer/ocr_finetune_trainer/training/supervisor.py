"""Watches the workers of one node: passes requests on, mirrors their progress, and says why one ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import ExitCode, OCRFineTuneError, StopRequested
from ocr_finetune_api.progress import Activity
from ocr_finetune_trainer.training.failures import oom_kills
from ocr_finetune_trainer.training.pulse import STOP, Outcome, State, ask, read_outcome, read_state

if TYPE_CHECKING:
    from ocr_finetune_trainer.telemetry.reporter import Reporter

__all__ = ["Supervisor", "stop_requests"]

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
ANSWER_SECONDS = 20.0
_ACTIVITIES = {
    "start": Activity.STARTING,
    "data": Activity.TRAINING,
    "compute": Activity.TRAINING,
    "evaluate": Activity.EVALUATING,
    "checkpoint": Activity.CHECKPOINTING,
    "stop": Activity.STOPPING,
    "done": Activity.DONE,
}


class Supervisor:
    """The workers of one node as their parent sees them.

    Attributes:
        ranks: Global ranks of the workers of this node.
        stop: Set when this node was asked to stop.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ranks: range,
        reporter: Reporter,
        stop: threading.Event,
        grace_seconds: float,
        stall_seconds: float,
    ) -> None:
        """Starts nothing yet.

        Args:
            folder: In memory, shared with the workers.
            ranks: Global ranks of the workers of this node.
            reporter: Gets the progress of rank 0.
            stop: Set when this node was asked to stop.
            grace_seconds: Time between a request to stop and the end of this process.
            stall_seconds: Without a change in what a worker does.
        """
        self.ranks = ranks
        self.stop = stop
        self._folder = folder
        self._reporter = reporter
        self._grace = grace_seconds
        self._stall = stall_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._oom_kills = 0
        self._asked_at: float | None = None
        self._started_at = 0.0

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        """Watches a process from now on: the worker, or the launcher of the workers."""
        self._process = process
        self._oom_kills = oom_kills()
        self._started_at = time.time()

    def states(self) -> list[State]:
        """What the workers say of themselves."""
        states = (read_state(self._folder, rank) for rank in self.ranks)
        return [state for state in states if state is not None]

    def poll(self) -> bool:
        """Looks once; whether the process has ended.

        Raises:
            OCRFineTuneError: A worker hangs, or no worker answers a request to stop.
        """
        assert self._process is not None
        ended = self._process.poll() is not None
        states = self.states()
        for state in states:
            if state.rank == 0:
                self._mirror(state)
        if not ended:
            self._pass_stop_on(states)
            self._check_stall(states)
        return ended

    def outcome(self) -> Outcome:
        """How this node's part ended, from the words of its workers or, where one left none, from its end."""
        assert self._process is not None
        outcomes = {rank: read_outcome(self._folder, rank) for rank in self.ranks}
        failed = [o for o in outcomes.values() if o is not None and o.exit_code not in (0, ExitCode.STOPPED)]
        # What broke because a peer was lost says nothing of the cause.
        own = [outcome for outcome in failed if not outcome.peer]
        if own:
            return own[0]
        silent = [rank for rank, outcome in outcomes.items() if outcome is None]
        code = self._process.returncode
        if silent and (code != 0 or self._process.poll() is None):
            return self._silent(silent, code, aborted=bool(failed))
        return failed[0] if failed else next(o for o in outcomes.values() if o is not None)

    def kill(self) -> None:
        """Ends the workers at once."""
        if self._process is not None and self._process.poll() is None:
            for state in self.states():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(state.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def _mirror(self, state: State) -> None:
        activity = Activity.STOPPING if state.stopping else _ACTIVITIES.get(state.phase, Activity.TRAINING)
        if state.waiting and state.phase == "start":
            activity = Activity.WAITING
        fields: dict[str, Any] = {"activity": activity, **state.progress}
        if state.written >= 0:
            fields["checkpoint_step"] = state.written
        self._reporter.update(**fields)

    def _pass_stop_on(self, states: list[State]) -> None:
        if not self.stop.is_set():
            return
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            ask(self._folder, STOP)
            logger.info("stopping: a checkpoint is written first")
        waited = now - self._asked_at
        answered = any(state.stopping for state in states)
        if (waited > ANSWER_SECONDS and not answered) or waited > self._grace - 5.0:
            newest = max((state.written for state in states), default=-1)
            kept = f"the checkpoint of step {newest} counts" if newest >= 0 else "no checkpoint of this attempt exists"
            self.kill()
            raise StopRequested(f"stopped after {waited:.0f} s without an answer of all ranks; {kept}")

    def _check_stall(self, states: list[State]) -> None:
        now = time.time()
        for state in states:
            since = max(state.since, self._started_at)
            if state.phase not in ("done",) and now - since > self._stall:
                self.kill()
                raise OCRFineTuneError(
                    f"rank {state.rank} has been at {state.phase!r} of step {state.step} for {now - since:.0f} s",
                    hint="raise policy.stallTimeout if that can be right",
                    exit_code=ExitCode.INTERNAL,
                )

    def _silent(self, silent: list[int], code: int | None, *, aborted: bool) -> Outcome:
        names = ", ".join(f"rank {rank}" for rank in silent)
        if oom_kills() > self._oom_kills:
            return Outcome(
                exit_code=int(ExitCode.INTERNAL),
                problems=[f"{names} was ended by the kernel: the container is out of memory"],
                hint="raise pods.resources.train.limits.memory, or lower training.workers or training.batchSize",
                values={"failureClass": "OutOfMemory"},
            )
        how = f"was ended by {_signal_name(code)}" if code is not None else "does not answer"
        return Outcome(exit_code=int(ExitCode.INTERNAL), problems=[f"{names} {how}"], peer=aborted)


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, instead of ending this process."""
    asked = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_name(code: int) -> str:
    """Signals come as -9, as 137 through a shell, or as 247 through Paddle's launcher."""
    for number in (-code, code - 128, 256 - code):
        if 0 < number < signal.NSIG:
            with contextlib.suppress(ValueError):
                return signal.Signals(number).name
    return f"exit code {code}"
