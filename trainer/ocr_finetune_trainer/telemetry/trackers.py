"""Where the scalars and events of a training go beside Prometheus: one small interface, one class a destination."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.telemetry.services import Background, MLflow, VisualDL, WeightsAndBiases

__all__ = ["Careful", "EventLog", "ScalarLog", "TensorBoard", "Tracker", "open_trackers"]

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes what a training reports. It must be quick, and must never end a training."""

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Numbers at a step, named `train/…` and `validation/…`."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Something happened."""

    def close(self) -> None:
        """Nothing more comes."""


class EventLog:
    """`events.jsonl`: what happened, one JSON object a line, in the order in which it happened."""

    def __init__(self, path: Path, **constant: Any) -> None:
        """Opens nothing yet.

        Args:
            path: The file; it is appended to.
            constant: Fields of every line, such as the attempt.
        """
        self._path = path
        self._constant = constant
        self._failed = False

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Numbers are no events."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Appends a line."""
        line = json.dumps({"time": round(time.time(), 3), "event": name, **self._constant, **fields}, default=str)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            if not self._failed:
                logger.warning("%s: %s; events are not recorded", self._path, error.strerror)
            self._failed = True

    def close(self) -> None:
        """Every line is written already."""


class ScalarLog:
    """`scalars.jsonl`: the curves as plain text, for tests and for whoever has no TensorBoard."""

    def __init__(self, path: Path) -> None:
        """Opens nothing yet.

        Args:
            path: The file; it is appended to. Steps that were trained again after a kill stand there twice: the later
                line counts.
        """
        self._path = path
        self._failed = False

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Appends a line."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            if not self._failed:
                logger.warning("%s: %s; curves are not recorded", self._path, error.strerror)
            self._failed = True

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Events have a file of their own."""

    def close(self) -> None:
        """Every line is written already."""


class TensorBoard:
    """TensorBoard files, written by tensorboardX."""

    def __init__(self, folder: Path, *, attempt: int) -> None:
        """Opens the file.

        Args:
            folder: Where TensorBoard looks.
            attempt: Each attempt writes a file of its own; TensorBoard shows them as one curve.
        """
        self._writer = import_module("tensorboardX").SummaryWriter(
            str(folder), filename_suffix=f".a{attempt}", flush_secs=30
        )

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Adds a point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Shown as text."""
        if name != "evaluated":
            self._writer.add_text(f"events/{name}", json.dumps(dict(fields), default=str), int(fields.get("step", 0)))

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class Careful:
    """A tracker that is given up when it fails: what only watches must never end a training."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        """Wraps a tracker.

        Args:
            name: For the message.
            tracker: What may fail.
        """
        self._name = name
        self._tracker: Tracker | None = tracker

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Passes numbers on."""
        self._try(lambda tracker: tracker.scalars(values, step=step))

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Passes an event on."""
        self._try(lambda tracker: tracker.event(name, fields))

    def close(self) -> None:
        """Passes the end on."""
        self._try(lambda tracker: tracker.close())

    def _try(self, action: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            action(self._tracker)
        except Exception as error:
            logger.warning("%s is given up for this run: %s: %s", self._name, type(error).__name__, error)
            self._tracker = None


def open_trackers(
    workspace: Workspace, *, run: str, uid: str, attempt: int, extra: Sequence[str] = ()
) -> list[Tracker]:
    """All trackers of a run.

    Args:
        workspace: The run's files.
        run: Its name.
        uid: Its unique id.
        attempt: Number of the attempt.
        extra: Optional ones by name: `visualdl`, `wandb`, `mlflow`. One whose package is missing is named in the log and
            left out.

    Returns:
        The event log first.
    """
    services: dict[str, Callable[[], Tracker]] = {
        "visualdl": lambda: VisualDL(workspace.folder / "visualdl"),
        "wandb": lambda: WeightsAndBiases(run=run, uid=uid),
        "mlflow": lambda: MLflow(run=run, uid=uid),
    }
    opened: list[Tracker] = [
        EventLog(workspace.events, attempt=attempt),
        ScalarLog(workspace.folder / "scalars.jsonl"),
    ]
    try:
        opened.append(Careful("tensorboard", TensorBoard(workspace.tensorboard, attempt=attempt)))
    except OSError as error:
        logger.warning("tensorboard is not used: %s", error)
    for name in extra:
        if name in services:
            opened.append(Background(name, services[name]))
        else:
            logger.warning("there is no tracker %r; known are %s", name, ", ".join(services))
    return opened
