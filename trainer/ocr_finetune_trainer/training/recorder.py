"""What is seen of a training: it takes numbers from the loop and hands them to whoever watches, at little cost."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.telemetry import memory
from ocr_finetune_trainer.telemetry.trackers import Tracker
from ocr_finetune_trainer.telemetry.training_metrics import TrainingMetrics

if TYPE_CHECKING:
    from ocr_finetune_trainer.training.checkpoint import Progress
    from ocr_finetune_trainer.training.pulse import Pulse
    from ocr_finetune_trainer.training.step import Batch

__all__ = ["Recorder"]

logger = logging.getLogger(__name__)

_SMOOTHING = 0.9
_PARTS = ("data", "compute", "agree")  # of a step
_MEMORY_EVERY = 5.0  # seconds
_MOST_POINTS = 2000  # of a curve: more can't be seen, and would fill disks


@dataclass(kw_only=True)
class Recorder:
    """The numbers of one process.

    Attributes:
        pulse: Carries progress to the process that serves it.
        metrics: Prometheus metrics of this process.
        trackers: Files and services that take scalars and events; only rank 0 has any.
        steps: Steps of the whole training.
        steps_per_epoch: Steps of an epoch.
        metric_name: What chooses the best checkpoint.
        sources: Names of the sources of samples.
    """

    pulse: Pulse
    metrics: TrainingMetrics
    steps: int
    steps_per_epoch: int
    metric_name: str
    trackers: Sequence[Tracker] = ()
    sources: Sequence[str] = ()
    _lap: float = field(default_factory=time.monotonic)
    _times: dict[str, float] = field(default_factory=dict)
    _computed: float = 0.0
    _loss: float | None = None
    _speed: float = 0.0
    _seconds_per_step: float = 0.0
    _wait: float = 0.0
    _seen: dict[int, dict[str, float]] = field(default_factory=dict)
    _memory_seen: float = -math.inf

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Measures a part of a step."""
        begin = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - begin
            self._times[part] = self._times.get(part, 0.0) + seconds
            self.metrics.part(part, seconds)

    def lap(self) -> float:
        """Seconds since the last step ended."""
        now = time.monotonic()
        seconds, self._lap = now - self._lap, now
        return seconds

    @property
    def computed(self) -> float:
        """Seconds that this process computed for the last step."""
        return self._computed

    def agreed(self, *, skew: float) -> None:
        """All ranks have agreed on what to do after a step; `skew` is how much longer this one computed."""
        self.metrics.skew(skew)

    def looked_at_sources(self, losses: Sequence[float], *, seen: Sequence[bool]) -> None:
        """The loss of each source is known, where there were samples of it."""
        self.metrics.by_source(
            {name: float(loss) for name, loss, was in zip(self.sources, losses, seen, strict=True) if was}
        )

    def stepped(self, *, batch: Batch, total: int, rate: float, progress: Progress) -> None:
        """A step was trained."""
        parts = {part: self._times.get(part, 0.0) for part in _PARTS}
        wait, seconds = parts["data"], max(sum(parts.values()), 1e-9)
        self._computed = parts["compute"]
        self._times.clear()
        self._seconds_per_step = _smooth(self._seconds_per_step, seconds)
        self._speed = total / self._seconds_per_step
        self._wait = _smooth(self._wait, wait / seconds)
        # What the device computed is known a few steps later; what belongs to this step waits for it.
        self._seen[progress.step - 1] = {
            "train/learning_rate": rate,
            "train/samples_per_second": self._speed,
            "train/data_wait": self._wait,
            **{f"seconds/{part}": value for part, value in parts.items()},
        }
        self.metrics.stepped(
            samples=len(batch["index"]), rate=rate, step=progress.step, epoch=progress.step / self.steps_per_epoch
        )
        if self.sources:
            counts = np.bincount(batch["source"], minlength=len(self.sources)).tolist()
            self.metrics.drawn(dict(zip(self.sources, counts, strict=True)))
        if time.monotonic() - self._memory_seen >= _MEMORY_EVERY:
            self._memory_seen = time.monotonic()
            self.metrics.memory(memory.usage())
        left = (self.steps - progress.step) * self._seconds_per_step
        self.pulse.stepped(progress.step)
        self.pulse.progress(
            step=progress.step,
            epoch=min(progress.step // self.steps_per_epoch + 1, self.steps // self.steps_per_epoch),
            percent=round(100.0 * progress.step / max(self.steps, 1), 2),
            eta_seconds=round(left, 1),
            learning_rate=rate,
            samples_per_second=round(self._speed, 2),
            data_wait=round(self._wait, 4),
        )

    def looked(self, *, step: int, terms: Mapping[str, float], norm: float, finite: bool, scale: float) -> None:
        """The numbers of a step were read from the device."""
        if finite:
            loss = terms["loss"]
            self._loss = loss if self._loss is None else _smooth(self._loss, loss)
            self.pulse.progress(loss=round(self._loss, 6))
        else:
            self.event("unusable-step", step=step, **{name: str(value) for name, value in terms.items()})
        self.metrics.looked(terms=terms, norm=norm, finite=finite, scale=scale)
        about = self._seen.pop(step, {})
        if step % max(self.steps // _MOST_POINTS, 1) == 0:
            scalars = {f"train/{name}": value for name, value in terms.items()} | about
            scalars["train/gradient_norm"] = norm
            for tracker in self.trackers:
                tracker.scalars(scalars, step=step)

    def evaluated(self, metrics: Mapping[str, Any], *, best: bool, progress: Progress) -> None:
        """The weights were measured."""
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        self.metrics.evaluated(numbers, stale=progress.stale_evaluations)
        if progress.best_metric is not None:
            self.metrics.best(progress.best_metric)
        self.pulse.progress(
            metric_name=self.metric_name,
            metric=numbers.get(self.metric_name),
            best_metric=progress.best_metric,
        )
        for tracker in self.trackers:
            tracker.scalars({f"validation/{name}": value for name, value in numbers.items()}, step=progress.step)
        self.event("evaluated", step=progress.step, best=best, **numbers)

    def stands_still(self, progress: Progress, *, patience: int) -> None:
        """The metric has not improved for a while."""
        left = f"; training ends after {patience - progress.stale_evaluations} more" if patience else ""
        logger.warning(
            "%s has not improved for %d evaluations: it is at %s since step %d%s",
            self.metric_name, progress.stale_evaluations, progress.best_metric, progress.best_step, left,
        )  # fmt: skip
        self.event(
            "plateau",
            step=progress.step,
            evaluations=progress.stale_evaluations,
            metric=self.metric_name,
            best=progress.best_metric,
            bestStep=progress.best_step,
        )

    def event(self, name: str, **fields: Any) -> None:
        """Something happened that a person may ask about."""
        for tracker in self.trackers:
            tracker.event(name, fields)

    def close(self) -> None:
        """Writes what is left."""
        for tracker in self.trackers:
            tracker.close()


def _smooth(mean: float, value: float) -> float:
    return value if mean == 0.0 else _SMOOTHING * mean + (1 - _SMOOTHING) * value
