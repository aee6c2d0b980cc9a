"""The signs of life between the processes of a node: what a worker is doing, and what it is asked to do.

They are small files in memory, written by a thread: a worker that is stopped or gone is known by the age of its file, and
one that hangs by its phase, whatever the main thread is stuck in.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from prometheus_client import CollectorRegistry, generate_latest

from ocr_finetune_api.exit_codes import ExitCode, FailureClass, OCRFineTuneError

__all__ = ["PROFILE", "STOP", "Outcome", "Pulse", "State", "ask", "read_outcome", "read_state"]

BEAT_SECONDS = 0.25
BEATS_AN_EXPOSITION = 4
STOP = "stop"
ABORTED = "aborted (its log has the trace)"
_FATAL = re.compile(r"Fatal Python error: (.+)")
PROFILE = "profile"


@dataclass(frozen=True, kw_only=True)
class State:
    """What a worker says of itself.

    Attributes:
        rank: Which one.
        pid: Its process.
        phase: What it is doing: `start`, `data`, `compute`, `evaluate`, `checkpoint`, `stop`, `done`.
        waiting: Whether it waits for other ranks.
        since: When phase, waiting or done changed, seconds since the epoch of this machine.
        step: Steps trained.
        done: Part of the backward pass of the step after these that is computed, 0 to 1; 0 where nobody waits for it.
        stopping: Whether it knows that it has to stop.
        written: Step of the newest checkpoint; -1 if there is none.
        beat: When this was written.
        progress: Fields of the progress document.
    """

    rank: int
    pid: int = 0
    phase: str = "start"
    waiting: bool = False
    since: float = 0.0
    step: int = 0
    done: float = 0.0
    stopping: bool = False
    written: int = -1
    beat: float = 0.0
    progress: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a worker ended.

    Attributes:
        exit_code: 0 if training is done.
        problems: What was wrong, one sentence each.
        hint: What to do.
        peer: Whether the failure is that of another rank: a collective that broke.
        values: What the stage reports, if it is done; else what is known of the failure: `failureClass`, and the `node`
            where it began.
    """

    exit_code: int = 0
    problems: list[str] = field(default_factory=list)
    hint: str = ""
    peer: bool = False
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, error: OCRFineTuneError, *, peer: bool = False) -> Self:
        """The outcome of a failure."""
        known = {"failureClass": error.failure_class and error.failure_class.value, "node": error.node}
        return cls(
            exit_code=int(error.exit_code),
            problems=list(error.problems),
            hint=error.hint,
            peer=peer,
            values={name: value for name, value in known.items() if value is not None},
        )

    def error(self) -> OCRFineTuneError:
        """The failure as it was raised in the worker."""
        error = OCRFineTuneError(*self.problems, hint=self.hint, exit_code=ExitCode(self.exit_code))
        if "failureClass" in self.values:
            error.failure_class = FailureClass(self.values["failureClass"])
        error.node = self.values.get("node")
        return error


class Pulse:
    """Writes a worker's state, and reads what it is asked to do.

    Attributes:
        state: What it is doing.
        stop: Set when somebody asked this process to stop.
        profile: Set when somebody asked for a profile; whoever makes it clears it.
    """

    def __init__(self, folder: Path, *, rank: int, stop_file: Path | None = None) -> None:
        """Starts nothing yet.

        Args:
            folder: Shared with the process that watches.
            rank: Number of this worker.
            stop_file: A file whose appearance asks for a stop as well.
        """
        self._folder = folder
        self._stop_file = stop_file
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.state = State(rank=rank, pid=os.getpid(), since=time.time())
        self._published: tuple[Path, CollectorRegistry] | None = None
        self._expositions = 0
        self._profiled_at = 0
        self.stop = threading.Event()
        self.profile = threading.Event()

    def phase(self, name: str) -> None:
        """Says what the process does from now on."""
        self._change(phase=name, since=time.time())

    def waiting(self, waiting: bool) -> None:
        """Says whether the process waits for others."""
        self._change(waiting=waiting, since=time.time())

    def stepped(self, step: int) -> None:
        """Says how many steps are trained."""
        self._change(step=step, done=0.0)

    def computed(self, part: float) -> None:
        """Says how far the backward pass of the next step has come, 0 to 1."""
        self._change(done=part, since=time.time())

    def update(self, **fields: Any) -> None:
        """Changes other fields of the state."""
        self._change(**fields)

    def progress(self, **fields: Any) -> None:
        """Changes fields of the progress document."""
        with self._lock:
            self.state = _replace(self.state, progress={**self.state.progress, **fields})

    def publish(self, path: Path, registry: CollectorRegistry) -> None:
        """Writes the metrics of a registry to a file with each second's beat."""
        self._published = (path, registry)

    def finish(self, outcome: Outcome) -> None:
        """Says how it ended; the last thing that a worker does."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._expositions = BEATS_AN_EXPOSITION - 1
        self._beat()
        _put(self._folder / f"rank-{self.state.rank}.outcome", asdict(outcome))

    def start(self) -> Self:
        """Begins to beat."""
        self._beat()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()
        return self

    def _change(self, **fields: Any) -> None:
        with self._lock:
            self.state = _replace(self.state, **fields)

    def _run(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            self._beat()
            if (self._folder / STOP).exists() or (self._stop_file is not None and self._stop_file.exists()):
                self.stop.set()
            self._look_for_profile_request()

    def _look_for_profile_request(self) -> None:
        # Every worker of the node answers each request once.
        try:
            asked_at = (self._folder / PROFILE).stat().st_mtime_ns
        except OSError:
            return
        if asked_at > self._profiled_at:
            self._profiled_at = asked_at
            self.profile.set()

    def _beat(self) -> None:
        self._change(beat=time.time())
        # The watcher may have ended and taken the folder with it; its death ends this process too.
        with contextlib.suppress(OSError):
            _put(self._folder / f"rank-{self.state.rank}.state", asdict(self.state))
            self._expositions += 1
            if self._published is not None and self._expositions % BEATS_AN_EXPOSITION == 0:
                _write(self._published[0], generate_latest(self._published[1]))


def ask(folder: Path, what: str) -> None:
    """Asks all workers of a folder for something: `STOP` or `PROFILE`."""
    with contextlib.suppress(OSError):
        (folder / what).touch()


def read_state(folder: Path, rank: int) -> State | None:
    """What a worker says of itself, None if it has not said anything yet."""
    values = _get(folder / f"rank-{rank}.state")
    return None if values is None else State(**values)


def read_outcome(folder: Path, rank: int) -> Outcome | None:
    """How a worker ended, None if it did not say."""
    values = _get(folder / f"rank-{rank}.outcome")
    return None if values is None else Outcome(**values)


def record_fatal(folder: Path, rank: int) -> None:
    """Keeps the last words of this process if a signal such as SIGABRT or SIGSEGV ends it."""
    # Paddle's own handlers print a trace of their own and take the place of Python's.
    file = (folder / f"rank-{rank}.fatal").open("w", encoding="utf-8")
    faulthandler.enable(file=file, all_threads=False)


def read_fatal(folder: Path, rank: int) -> str:
    """What ended a worker by its last words; empty if it had none, as after SIGKILL."""
    try:
        text = (folder / f"rank-{rank}.fatal").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = _FATAL.search(text)
    return f"{found.group(1).lower()} (its log has the trace)" if found else ""


def _replace(state: State, **fields: Any) -> State:
    return State(**{**state.__dict__, **fields})


def _put(path: Path, values: dict[str, Any]) -> None:
    _write(path, json.dumps(values).encode())


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    aside.write_bytes(content)
    aside.replace(path)


def _get(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return values if isinstance(values, dict) else None
