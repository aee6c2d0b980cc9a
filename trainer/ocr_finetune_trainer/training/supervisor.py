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

from ocr_finetune_api.exit_codes import ExitCode, FailureClass, StopRequested
from ocr_finetune_api.progress import Activity
from ocr_finetune_trainer.training.failures import oom_kills
from ocr_finetune_trainer.training.pulse import (
    ABORTED,
    PROFILE,
    STOP,
    Outcome,
    State,
    ask,
    read_fatal,
    read_outcome,
    read_state,
)

if TYPE_CHECKING:
    from ocr_finetune_trainer.telemetry.reporter import Reporter

__all__ = ["Supervisor", "stop_requests"]

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
ANSWER_SECONDS = 20.0
CAUSE_SECONDS = 1.0
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
        in_gang: bool = False,
    ) -> None:
        """Starts nothing yet.

        Args:
            folder: In memory, shared with the workers.
            ranks: Global ranks of the workers of this node.
            reporter: Gets the progress of rank 0.
            stop: Set when this node was asked to stop.
            grace_seconds: Time between a request to stop and the end of this process.
            stall_seconds: Without a change in what a worker does.
            in_gang: Whether other nodes take part.
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
        self._broke_at = 0.0
        self._in_gang = in_gang

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        """Watches a process from now on: the worker, or the launcher of the workers."""
        self._process = process
        self._oom_kills = oom_kills()
        self._started_at = time.time()

    def states(self) -> list[State]:
        """What the workers say of themselves."""
        states = (read_state(self._folder, rank) for rank in self.ranks)
        return [state for state in states if state is not None]

    def poll(self) -> Outcome | None:
        """Looks once.

        Returns:
            How this node's part ended, None while it goes on.

        Raises:
            StopRequested: The workers did not answer a request to stop; they are ended.
        """
        assert self._process is not None
        ended = self._process.poll() is not None
        states = self.states()
        for state in states:
            if state.rank == 0:
                self._mirror(state)
        outcome = self._outcome(states, ended=ended)
        if outcome is None:
            self._pass_stop_on(states)
            outcome = self._stalled(states)
        return outcome

    def _outcome(self, states: list[State], *, ended: bool) -> Outcome | None:
        outcomes = {rank: read_outcome(self._folder, rank) for rank in self.ranks}
        given = [outcome for outcome in outcomes.values() if outcome is not None]
        failed = [outcome for outcome in given if outcome.exit_code not in (ExitCode.OK, ExitCode.STOPPED)]
        # What broke because a peer was lost says nothing of the cause.
        own = [outcome for outcome in failed if not outcome.peer]
        if own:
            return own[0]
        if len(given) == len(outcomes):
            return failed[0] if failed else given[0]
        dead = [state.rank for state in states if outcomes[state.rank] is None and not _alive(state.pid)]
        if ended and not dead:
            dead = [rank for rank, outcome in outcomes.items() if outcome is None]
        if not (dead or failed):
            return None
        # A peer that is killed takes the others along within moments: the first one seen need not be the cause.
        self._broke_at = self._broke_at or time.monotonic()
        if not ended and time.monotonic() - self._broke_at < CAUSE_SECONDS:
            return None
        return self._silent(dead) if dead else failed[0]

    def newest_checkpoint(self) -> str:
        """Which checkpoint counts, as a clause."""
        newest = max((state.written for state in self.states()), default=-1)
        if newest < 0:
            return "the newest checkpoint of an earlier attempt counts, if there is one"
        return f"the checkpoint of step {newest} counts"

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
            kept = self.newest_checkpoint()
            self.kill()
            raise StopRequested(f"stopped after {waited:.0f} s without an answer of all ranks; {kept}")

    def _stalled(self, states: list[State]) -> Outcome | None:
        now = time.time()
        late = [
            state
            for state in states
            if state.phase != "done" and now - max(state.since, self._started_at) > self._stall
        ]
        if not late:
            return None
        # Who waits is held up by somebody else, unless the process itself is frozen: then its signs of life have ended, a
        # little after it began to wait.
        hanging = [state for state in late if not state.waiting or now - state.beat > self._stall / 2]
        state = (hanging or late)[0]
        what = "has been" if hanging else "has waited for others"
        seconds = now - max(state.since, self._started_at)
        return Outcome(
            exit_code=int(ExitCode.INTERNAL),
            problems=[f"rank {state.rank} {what} at {state.phase!r} of step {state.step} for {seconds:.0f} s"],
            hint="look at what the ranks do there; raise policy.stallTimeout if that can be right",
            peer=not hanging,
            values={"failureClass": FailureClass.STALLED.value},
        )

    def _silent(self, dead: list[int]) -> Outcome:
        """Why workers ended without a word."""
        assert self._process is not None
        if oom_kills() > self._oom_kills:
            names = ", ".join(f"rank {rank}" for rank in dead)
            return Outcome(
                exit_code=int(ExitCode.DEVICE),
                problems=[f"{names} was ended by the kernel: the container is out of memory"],
                hint="raise pods.resources.train.limits.memory, or lower training.workers or training.batchSize",
                values={"failureClass": FailureClass.OUT_OF_MEMORY.value},
            )
        last_words = {rank: read_fatal(self._folder, rank) for rank in dead}
        several = len(self.ranks) > 1 or self.ranks.start > 0 or self._in_gang
        causes = [rank for rank in dead if not (several and last_words[rank] == ABORTED)]
        if not causes:
            return Outcome(
                exit_code=int(ExitCode.PEER_UNAVAILABLE),
                problems=[f"rank {dead[0]}: the connection to a peer broke"],
                peer=True,
            )
        rank = causes[0]
        how = last_words[rank] or _ended_by(self._process.returncode)
        return Outcome(exit_code=int(ExitCode.INTERNAL), problems=[f"rank {rank} {how}"])


@contextlib.contextmanager
def stop_requests(folder: Path) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, instead of ending this process; SIGUSR1 asks the workers for a profile.

    Args:
        folder: In memory, shared with the workers.
    """
    asked = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda _number, _frame: ask(folder, PROFILE))
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _alive(pid: int) -> bool:
    """Whether a process of this machine runs; one that is dead and not yet buried does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] not in (["Z"], ["X"])


def _ended_by(code: int | None) -> str:
    """Signals come as -9, as 137 through a shell, or as 247 through Paddle's launcher."""
    if code is None:
        return "was killed"
    for number in (-code, code - 128, 256 - code):
        if 0 < number < signal.NSIG:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(number).name}"
    return f"ended with exit code {code} and without a word"
