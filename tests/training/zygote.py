"""A process that has imported Paddle once and forks trainings from it: a run starts in a fraction of a second.

Reads one JSON object a line: what to train; answers with the process id; reports ends with the exit status.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

import rapidfuzz  # noqa: F401 - this and the next are imported for the children
import tensorboardX  # noqa: F401

import ocr_finetune_trainer.evaluation.evaluate
import ocr_finetune_trainer.losses.ctc
import ocr_finetune_trainer.models.mobilenetv3_small_ctc  # noqa: F401
from ocr_finetune_trainer.training import assembly, pulse, worker  # noqa: F401

# These trainings take half a second: tests that wait for a step of them must see it at once.
pulse.BEAT_SECONDS = 0.02
pulse.BEATS_AN_EXPOSITION = 25
GO = "go"


def train(order: dict) -> int:
    """What a worker does, in a process that exists already."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.environ.update(order["environment"])
    if order["memory"]:
        limit_memory(order["memory"])
    if order["hold_at"]:
        hold(order["hold_at"], until=Path(order["folder"]) / GO)
    config = Path(order["config"])
    return worker.main(
        [
            "--config", str(config), "--workspace", order["workspace"],
            "--folder", order["folder"], "--execution", order["execution"], "--parent", str(os.getppid()),
        ]
    )  # fmt: skip


def limit_memory(more: int) -> None:
    """Gives this process so many bytes beside those that it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def hold(step: int, *, until: Path) -> None:
    """Makes this process stand still after a step until a file is there: what a test does then can't come too late."""
    stepped = pulse.Pulse.stepped

    def stand_still(self: pulse.Pulse, trained: int) -> None:
        stepped(self, trained)
        while trained == step and not until.exists():
            time.sleep(0.005)

    pulse.Pulse.stepped = stand_still


def main() -> None:
    """Serves until its input ends."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    say({"ready": os.getpid()})
    buffer = b""
    while True:
        ready, _, _ = select.select([0, read], [], [])
        if read in ready:
            os.read(read, 4096)
            bury()
        if 0 in ready:
            part = os.read(0, 1 << 16)
            if not part:
                return
            buffer += part
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                begin(json.loads(line))


def begin(order: dict) -> None:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = train(order)
        finally:
            os._exit(code)
    say({"started": pid})


def bury() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def say(message: dict) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
