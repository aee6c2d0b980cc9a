"""Where a stage leaves its progress and metrics for whoever asks.

A stage writes to a folder in memory, a few times a second at most and from a thread of its own; the process that serves
HTTP (`ocr_finetune_trainer.telemetry.server`) reads it there. So a scrape never touches a process that trains, and the
endpoint lives before the first and after the last rank does.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Self

from prometheus_client import CollectorRegistry, generate_latest

from ocr_finetune_api.plan import Stage
from ocr_finetune_api.progress import Activity, Progress

PROGRESS_FILE = "progress.json"
WRITE_EVERY_SECONDS = 0.25


class Reporter:
    """Takes the progress and the metrics of one process.

    Attributes:
        registry: Prometheus metrics of this process; add collectors to it.
        progress: The document as it stands.
    """

    def __init__(self, *, folder: Path, progress: Progress, rank: int = 0) -> None:
        """Starts with a first document; nothing is written before `start`.

        Args:
            folder: Where the files go; shared by the processes of one node.
            progress: What is known at the beginning.
            rank: Global rank of this process; only rank 0 writes the progress document.
        """
        self.registry = CollectorRegistry()
        self.progress = progress
        self._folder = folder
        self._rank = rank
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def folder(self) -> Path:
        """Where the files go; other processes of this node may put `rank-*.prom` there too."""
        return self._folder

    @classmethod
    def for_stage(cls, stage: Stage, *, folder: Path, rank: int = 0, attempt: int = 1) -> Self:
        """A reporter for a stage that has just begun."""
        progress = Progress(stage=stage, attempt=attempt, updated_at=time.time())
        return cls(folder=folder, progress=progress, rank=rank)

    def update(self, **fields: Any) -> None:
        """Changes fields of the progress document (`ocr_finetune_api.progress.Progress`); cheap, safe in any thread."""
        with self._lock:
            self.progress = self.progress.model_copy(update={**fields, "updated_at": time.time()})

    def activity(self, activity: Activity, message: str = "") -> None:
        """Announces what the stage is busy with."""
        self.update(activity=activity, message=message)

    def start(self) -> Self:
        """Begins to write."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._write_until_stopped, name="telemetry", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Writes what is left and stops."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self.write()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def write(self) -> None:
        """Writes now."""
        if self._rank == 0:
            self._replace(PROGRESS_FILE, self.progress.model_dump_json(by_alias=True).encode())
        self._replace(f"rank-{self._rank}.prom", generate_latest(self.registry))

    def _write_until_stopped(self) -> None:
        while not self._stop.wait(WRITE_EVERY_SECONDS):
            self.write()

    def _replace(self, name: str, content: bytes) -> None:
        aside = self._folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            aside.write_bytes(content)
            aside.replace(self._folder / name)
        except OSError:
            # Telemetry must never end a run: the folder may be gone because the process is being stopped.
            aside.unlink(missing_ok=True)
