"""Other people's programs that draw curves: VisualDL, Weights & Biases, MLflow. None of them is needed.

Each is imported only where it is asked for. What they do may take as long as a network takes, so each works in a thread of
its own: training never waits for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocr_finetune_trainer.telemetry.trackers import Tracker

__all__ = ["Background", "MLflow", "VisualDL", "WeightsAndBiases"]

logger = logging.getLogger(__name__)

_MOST_WAITING = 10_000  # reports; a service that is that far behind will not catch up
_CLOSE_SECONDS = 30.0
_UID_TAG = "ocrfinetune.uid"


class VisualDL:
    """VisualDL files; needs the package `visualdl`."""

    def __init__(self, folder: Path) -> None:
        """Opens the file."""
        self._writer = import_module("visualdl").LogWriter(logdir=str(folder))

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Adds a point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(tag=name, step=step, value=value)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Shown as text."""
        text = json.dumps(dict(fields), default=str)
        self._writer.add_text(tag=f"events/{name}", step=int(fields.get("step", 0)), text_string=text)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class WeightsAndBiases:
    """Weights & Biases; needs the package `wandb` and its usual environment (`WANDB_API_KEY`, `WANDB_PROJECT`)."""

    def __init__(self, *, run: str, uid: str) -> None:
        """Opens the run, the same one in each attempt."""
        self._run = import_module("wandb").init(name=run, id=uid, resume="allow")
        # Its own count of steps never goes back; ours does when an attempt begins at an older checkpoint.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Adds a point to each curve."""
        self._run.log({"step": step, **values})

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Events are not sent."""

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class MLflow:
    """MLflow; needs the package `mlflow` or `mlflow-skinny` and its usual environment (`MLFLOW_TRACKING_URI`)."""

    def __init__(self, *, run: str, uid: str) -> None:
        """Opens the run, the same one in each attempt."""
        self._mlflow = mlflow = import_module("mlflow")
        experiment = mlflow.set_experiment(mlflow.environment_variables.MLFLOW_EXPERIMENT_NAME.get() or "Default")
        found = mlflow.MlflowClient().search_runs(
            [experiment.experiment_id], filter_string=f"tags.`{_UID_TAG}` = '{uid}'", max_results=1
        )
        known = found[0].info.run_id if found else None
        self._run = mlflow.start_run(run_id=known, run_name=run, tags={_UID_TAG: uid}).info.run_id

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Adds a point to each curve."""
        self._mlflow.log_metrics(dict(values), step=step, run_id=self._run)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Events are not sent."""

    def close(self) -> None:
        """Ends the run."""
        self._mlflow.MlflowClient().set_terminated(self._run)


class Background:
    """A tracker that works in a thread of its own, from its beginning to its end."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        """Starts the thread, which opens the tracker.

        Args:
            name: For messages.
            make: Opens it.
        """
        self._name = name
        self._make = make
        self._reports: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(_MOST_WAITING)
        self._lost = 0
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Passes numbers on."""
        kept = dict(values)
        self._put(lambda tracker: tracker.scalars(kept, step=step))

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Passes an event on."""
        kept = dict(fields)
        self._put(lambda tracker: tracker.event(name, kept))

    def close(self) -> None:
        """Waits until everything is passed on, for a while."""
        with contextlib.suppress(queue.Full):
            self._reports.put(None, timeout=_CLOSE_SECONDS)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            logger.warning("%s: about %d reports were not passed on in time", self._name, self._reports.qsize())

    def _put(self, report: Callable[[Tracker], None]) -> None:
        if not self._thread.is_alive():
            return
        try:
            self._reports.put_nowait(report)
        except queue.Full:
            if not self._lost:
                logger.warning("%s is too far behind: reports to it are left out", self._name)
            self._lost += 1

    def _work(self) -> None:
        try:
            tracker = self._make()
            while (report := self._reports.get()) is not None:
                report(tracker)
            tracker.close()
        except Exception as error:
            logger.warning("%s is given up for this run: %s: %s", self._name, type(error).__name__, error)
