"""Programs that a test starts: each with its log in a file, and each gone when the test ends, however that ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

# Deadlines only matter where something is broken; a busy machine takes half a minute to start a process.
DEADLINE = 120.0
_PR_SET_PDEATHSIG = 1
# Below what services of a cluster take, and above what programs are known by.
_OWN_PORTS = range(10_000, 29_000)


class DeadlineError(AssertionError):
    """What was waited for did not come in time."""


def wait_for(
    what: Callable[[], T | None],
    *,
    describe: str | Callable[[], str],
    timeout: float = DEADLINE,
    interval: float = 0.05,
) -> T:
    """Calls ``what`` until it returns something true, and returns that.

    Args:
        what: Returns a false value as long as the condition does not hold.
        describe: What is waited for, for the message; a callable is asked at the deadline.
        timeout: Seconds until the deadline.
        interval: Seconds between two calls.

    Raises:
        DeadlineError: If the condition does not hold at the deadline.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := what():
            return value
        if time.monotonic() > deadline:
            said = describe if isinstance(describe, str) else describe()
            raise DeadlineError(f"after {timeout:g} s still waiting for: {said}")
        time.sleep(interval)


def free_ports(count: int, *, host: str = "127.0.0.1") -> list[int]:
    """Returns ports that nobody listens on; all differ.

    None is of those that the kernel gives to whoever asks for any port, or connects to one: such a port may be taken
    again before the program listens that it is meant for, and each time that this starts anew.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.SystemRandom().sample(_OWN_PORTS, len(_OWN_PORTS)):
            if len(found) == count:
                break
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind((host, port))
                found.append(port)
    return found


class Process:
    """A program with its log; it may be stopped and started again with the same command.

    Attributes:
        name: For messages, and the name of the log file.
        log: The file that takes standard output and standard error of every start.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [str(part) for part in command]
        self._env = dict(os.environ) | dict(env or {})
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the latest start."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code (negative: the signal), None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Process:
        """Starts the program, which must not run, and returns this object."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (it makes one system call)
            )
        return self

    def signal(self, number: int) -> None:
        """Sends a signal if the program still runs."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the program at once, as a machine that fails would."""
        self.signal(signal.SIGKILL)
        self.wait(timeout=DEADLINE)

    def stop(self, *, timeout: float = 10.0) -> int | None:
        """Asks the program to end, insists after ``timeout`` seconds, and returns its exit code."""
        if not self.running:
            return self.returncode
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.returncode

    def wait(self, *, timeout: float) -> int:
        """Waits for the end and returns the exit code."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.wait(timeout=timeout)

    def said(self) -> str:
        """Returns the log so far; empty before there is one."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 30) -> str:
        """Returns the last lines of the log."""
        return "\n".join(self.said().splitlines()[-lines:])

    def cpu_seconds(self) -> float:
        """Returns the seconds of processor time, user and system, of the running process."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_memory(self) -> int:
        """Returns the largest resident set so far, in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"{self.name} has no memory figures: it ended")


def die_with_parent() -> None:
    """Has the kernel end this process when the one ends that started it."""
    # Also a test run that is killed leaves nothing behind.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
