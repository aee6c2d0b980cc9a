"""Small real trainings, started from a process that has Paddle loaded already."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ocr_finetune_api.run_config import RunConfig
from ocr_finetune_api.workspace import Workspace, run_folder
from ocr_finetune_trainer.data.pictures import encode
from ocr_finetune_trainer.data.store import SHARD_INDEX, ViewRow, write_shard, write_view
from ocr_finetune_trainer.training import checkpoint
from ocr_finetune_trainer.training.pulse import Outcome, State, read_outcome, read_state
from ports import reserved

TRAIN, VALIDATION = 48, 16
UID = "12345678"
GO = "go"
DEADLINE_SECONDS = 120.0


def wait_for(condition: Callable[[], Any], *, seconds: float = DEADLINE_SECONDS, what: str = "the condition") -> Any:
    """Waits until something is true; its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.01)
    return value


def digits(count: int, *, start: int = 0) -> list[tuple[np.ndarray, str]]:
    """Real handwritten digits, uint8 (32, 32, 3)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = []
    for image, label in zip(data.images[start : start + count], data.target[start : start + count], strict=True):
        grey = (255 - image * 15.9).clip(0, 255).astype(np.uint8)
        grown = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_CUBIC)
        pictures.append((np.repeat(grown[:, :, None], 3, axis=2), str(label)))
    return pictures


def write_set(
    workspace: Workspace, name: str, samples: list[tuple[np.ndarray, str]], *, sources: tuple[str, ...] = ("digits",)
) -> None:
    """A set as prepare leaves it; its samples come from the sources in turn."""
    cache = workspace.cache / "shards"
    cache.mkdir(parents=True, exist_ok=True)
    pictures = [
        {"image": encode(image, lossless=True), "points": None, "texts": None, "ignored": None} for image, _ in samples
    ]
    # Columns that only preparing needs hold nothing here, whichever there are.
    nothing = {
        field.name: "" if field.type == "string" else b"" if field.type == "binary" else 0 for field in SHARD_INDEX
    }
    index = [
        {**nothing, "text": text, "width": image.shape[1], "height": image.shape[0], "boxes": -1}
        for image, text in samples
    ]
    shard = write_shard(cache, f"{workspace.run}-{name}", pictures=pictures, index=index, about={})
    rows = (
        ViewRow(shard=0, row=i, text=text, width=image.shape[1], height=image.shape[0], source=i % len(sources), group="",
                origin=f"{name}.txt:{i + 1}", digest=i)
        for i, (image, text) in enumerate(samples)
    )  # fmt: skip
    write_view(workspace.data / name, cache=cache, shards=[shard], sources=list(sources), rows=rows)


@dataclass
class Job:
    """A training of a test: its workspace and how it is run."""

    root: Path
    training: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    distributed: dict[str, Any] = field(default_factory=lambda: {"device": "cpu"})
    evaluation: dict[str, Any] = field(default_factory=dict)
    name: str = "digits"
    attempt: int = 0

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root, run_folder(self.name, UID))

    def config(self, **changes: Any) -> RunConfig:
        self.attempt += 1
        return RunConfig.model_validate(
            {
                "run": {"name": self.name, "uid": UID},
                "spec": {
                    "model": {"name": "MobileNetV3_small_ctc", "pretrained": "none", **self.model},
                    "dataset": {"train": [{"uri": "digits"}]},
                    "training": self.training,
                    "distributed": self.distributed,
                    "evaluation": self.evaluation,
                },
                "attempt": self.attempt,
                "device": "cpu",
                **changes,
            }
        )

    def checkpoints(self) -> list[checkpoint.Checkpoint]:
        return checkpoint.find(self.workspace.checkpoints)[0]

    def final(self) -> dict[str, np.ndarray]:
        """All arrays of the newest checkpoint, by file and name."""
        newest = checkpoint.load_latest(self.workspace)
        assert newest is not None
        return {
            f"{name}/{key}": value
            for name in ("model", "ema", "optimizer")
            for key, value in newest.arrays(name).items()
        }

    def losses(self) -> dict[int, float]:
        """The loss of each step; of one that was trained twice, the later."""
        return self.curve("train/loss")

    def curve(self, name: str) -> dict[int, float]:
        """A scalar by step; of one that was trained twice, the later."""
        found = {}
        for line in (self.workspace.folder / "scalars.jsonl").read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            if name in values:
                found[values["step"]] = values[name]
        return found

    def events(self, name: str = "") -> list[dict[str, Any]]:
        path = self.workspace.events
        # What follows the last end of a line is being written.
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [event for event in map(json.loads, lines) if not name or event["event"] == name]


@dataclass
class Started:
    """Processes of one training."""

    zygote: Zygote
    pids: list[int]
    folder: Path
    log: Path
    hold_at: int = 0

    def state(self, rank: int = 0) -> State | None:
        return read_state(self.folder, rank)

    def outcome(self, rank: int = 0) -> Outcome | None:
        return read_outcome(self.folder, rank)

    def step(self, rank: int = 0) -> int:
        state = self.state(rank)
        return state.step if state else 0

    def wait_for_hold(self) -> None:
        """Waits until all ranks stand still where they were told to."""

        def stands(rank: int) -> bool:
            assert self.pids[rank] not in self.zygote.ended, self.text
            return self.step(rank) == self.hold_at

        wait_for(lambda: all(stands(rank) for rank in range(len(self.pids))), what=f"step {self.hold_at}")

    def let_go(self) -> None:
        """Lets ranks that stand still go on."""
        (self.folder / GO).touch()

    def kill(self, rank: int = 0, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pids[rank], number)

    def end(self) -> None:
        for rank in range(len(self.pids)):
            self.kill(rank)
        self.wait()

    def wait(self, *, seconds: float = DEADLINE_SECONDS) -> list[int]:
        """Exit codes of all ranks; signals are negative."""
        wait_for(lambda: all(pid in self.zygote.ended for pid in self.pids), seconds=seconds, what=self.text)
        return [self.zygote.ended[pid] for pid in self.pids]

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


class Zygote:
    """The process that forks trainings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = ExitStack()
        self._count = 0
        self._started: queue.Queue[int] = queue.Queue()
        self.ended: dict[int, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def start(self, job: Job, *, world: int = 1, hold_at: int = 0, memory: int = 0, **changes: Any) -> Started:
        """Starts a training.

        Args:
            job: What to train.
            world: Processes.
            hold_at: Step after which each stands still until it is let go.
            memory: Bytes that each may take beside what it has at its beginning; 0: as many as there are.
            changes: Fields of the run configuration.
        """
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        config = job.config(devices_per_node=world, **changes)
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        log = folder / "log"
        port = self._ports.enter_context(reserved())
        pids = []
        for rank in range(world):
            environment = {}
            if world > 1:
                environment = {
                    "PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": str(world), "PADDLE_LOCAL_RANK": str(rank),
                    "PADDLE_MASTER": f"127.0.0.1:{port}", "PADDLE_CURRENT_ENDPOINT": f"127.0.0.1:{port + rank}",
                    "PADDLE_TRAINER_ENDPOINTS": ",".join(f"127.0.0.1:{port + other}" for other in range(world)),
                }  # fmt: skip
            self._ask(
                {
                    "config": str(folder / "config.yaml"), "workspace": str(job.root), "folder": str(folder),
                    "execution": f"e{self._count}", "environment": environment, "log": str(log), "hold_at": hold_at,
                    "memory": memory,
                }
            )  # fmt: skip
            pids.append(self._started.get(timeout=DEADLINE_SECONDS))
        return Started(self, pids, folder, log, hold_at)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._thread.join(timeout=5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._ports.close()

    def _ask(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "started" in message:
                self._started.put(message["started"])
            elif "ended" in message:
                self.ended[message["ended"]] = message["status"]
