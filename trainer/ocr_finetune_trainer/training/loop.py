"""The loop: what happens between the first step and the last, in the order in which it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ocr_finetune_api.exit_codes import DivergedError
from ocr_finetune_trainer.training.checkpoint import Progress, is_better
from ocr_finetune_trainer.training.guards import Guard, Verdict, is_plateau
from ocr_finetune_trainer.training.schedule import SAMPLES_EVERY

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ocr_finetune_trainer.training.average import Average
    from ocr_finetune_trainer.training.profiling import Profiling
    from ocr_finetune_trainer.training.pulse import Pulse
    from ocr_finetune_trainer.training.ranks import Ranks
    from ocr_finetune_trainer.training.recorder import Recorder
    from ocr_finetune_trainer.training.schedule import Schedule
    from ocr_finetune_trainer.training.step import Batch, StepResult, TrainStep

__all__ = ["Ending", "Feed", "Plan", "Saver", "Trainer"]


class Ending(StrEnum):
    """Why training ends."""

    DONE = "all epochs are trained"
    EARLY = "the metric has stopped improving"
    TARGET = "the metric has reached its target"
    BUDGET = "the time budget is used up"
    STOPPED = "a stop was asked for"
    PAUSE = "the parts have to be put together anew"


class Feed(Protocol):
    """Where batches come from."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""

    def open(self, step: int) -> AbstractContextManager[Iterator[Batch]]:
        """The batches of this rank from a step on, without end."""

    def total(self, step: int) -> int:
        """Samples of a step over all ranks."""


class Saver(Protocol):
    """Where checkpoints go to and come from."""

    def save(self, progress: Progress, *, metric: float | None, last: bool) -> None:
        """Writes a checkpoint; every rank calls it."""

    def go_back(self, progress: Progress) -> Progress:
        """Restores the newest good checkpoint before `progress.step` and returns how far it had come."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When things happen.

    Attributes:
        steps: Steps of the whole training.
        evaluate_every: Steps between evaluations.
        save_every_steps: Steps between checkpoints; 0: by time only.
        save_every_seconds: Seconds between checkpoints; 0: by steps only.
        metric: What chooses the best checkpoint.
        patience: Evaluations without improvement before training ends; 0 never ends it.
        min_delta: What counts as an improvement.
        target: Training ends when the metric reaches it.
        budget_seconds: Training ends after this time; 0: no limit.
        report_every: Steps between two looks at what the device computed.
        pause_at: Training returns before this step, to go on with other parts; 0 does not.
    """

    steps: int
    evaluate_every: int
    save_every_steps: int = 0
    save_every_seconds: float = 600.0
    metric: str = "accuracy"
    patience: int = 0
    min_delta: float = 0.0
    target: float | None = None
    budget_seconds: float = 0.0
    report_every: int = 1
    pause_at: int = 0


@dataclass(kw_only=True)
class Trainer:
    """One process of a training.

    Attributes:
        plan: When things happen.
        progress: How far it has come.
        ranks: The gang.
        pulse: Signs of life.
        feed: Batches.
        step: Trains on one of them.
        schedule: The learning rate.
        average: The moving average, None if none is kept.
        evaluate: Measures the weights that count; every rank calls it and gets the same figures.
        saver: Checkpoints.
        recorder: Metrics and events.
        guard: Notices what goes wrong.
        name_samples: Where samples come from, for messages.
        profiling: Answers requests for a profile.
    """

    plan: Plan
    progress: Progress
    ranks: Ranks
    pulse: Pulse
    feed: Feed
    step: TrainStep
    schedule: Schedule
    average: Average | None
    evaluate: Callable[[], dict[str, Any]]
    saver: Saver
    recorder: Recorder
    guard: Guard = field(default_factory=Guard)
    name_samples: Callable[[list[int]], list[str]] = lambda _: []
    profiling: Profiling | None = None
    _saved_at: float = field(default_factory=time.monotonic)
    _pending: list[tuple[int, Any, list[int]]] = field(default_factory=list)

    def run(self) -> Ending:
        """Trains to the end, or until something ends it before."""
        while (ending := self._ended()) is None:
            with self.feed.open(self.progress.step) as batches:
                if self.progress.evaluated_step < 0:
                    # Meanwhile the first batches are made.
                    self._evaluate()
                while (ending := self._ended()) is None:
                    self._train_on(self._next(batches))
                    stop, save = self._agree()
                    if self._look_is_due() and self._look() is Verdict.GO_BACK:
                        self._go_back()
                        break
                    if self._evaluation_is_due():
                        self._evaluate()
                    elif save:
                        self._save()
                    if stop:
                        return self._stop()
        return ending if ending is Ending.PAUSE else self._finish(ending)

    def _next(self, batches: Iterator[Batch]) -> Batch:
        self.pulse.phase("data")
        with self.recorder.timed("data"):
            return next(batches)

    def _train_on(self, batch: Batch) -> None:
        self.pulse.phase("compute")
        step, total = self.progress.step, self.feed.total(self.progress.step)
        rate = self.schedule(step) * self.progress.rate_factor
        with self.recorder.timed("compute"):
            result = self.step(batch, step=step, total=total, rate=rate)
            if self.average is not None:
                self.average.update(step + 1)
        self._advance(step=step + 1, samples=self.progress.samples + total)
        self._pending.append((step, result, [int(index) for index in batch["index"]]))
        self.recorder.stepped(batch=batch, total=total, rate=rate, progress=self.progress)

    def _agree(self) -> tuple[bool, bool]:
        """What all ranks do after this step: whether they stop, and whether they save."""
        seconds = self.recorder.lap()
        self._advance(seconds=self.progress.seconds + seconds)
        interval = self.plan.save_every_seconds
        due = self.ranks.first and interval > 0 and time.monotonic() - self._saved_at >= interval
        computed = self.recorder.computed
        with self.recorder.timed("agree"):
            rows = self.ranks.gather([float(self.pulse.stop.is_set()), float(due), self.progress.seconds, computed])
        stop, save, spent, fastest = rows[:, 0].any(), rows[:, 1].any(), rows[:, 2].mean(), rows[:, 3].min()
        # The clocks of ranks differ; what is kept and compared with the budget must not.
        self._advance(seconds=float(spent))
        self.recorder.agreed(skew=computed - float(fastest))
        if self.profiling is not None and (trace := self.profiling.step(self.progress.step)) is not None:
            self.recorder.event("profile", step=self.progress.step, path=str(trace))
        every = self.plan.save_every_steps
        return bool(stop), bool(save) or bool(every and self.progress.step % every == 0)

    def _look_is_due(self) -> bool:
        return self.progress.step % self.plan.report_every == 0 or self._evaluation_is_due()

    def _look(self) -> Verdict:
        """Reads what the device computed in the last steps, sums it over ranks and judges it."""
        verdict = Verdict.GO_ON
        if not self._pending:
            return verdict
        names = sorted(self._pending[0][1].terms)
        sums = self.ranks.sum([[float(result.terms[name]) for name in names] for _, result, _ in self._pending])
        for (step, result, samples), values in zip(self._pending, sums.tolist(), strict=True):
            terms = dict(zip(names, values, strict=True))
            finite, norm = bool(result.finite), float(result.norm)
            self.recorder.looked(step=step, terms=terms, norm=norm, finite=finite, scale=self.step.scale.value)
            if len(self.recorder.sources) > 1 and step % SAMPLES_EVERY == 0:
                self._look_at_sources(result)
            if self.guard.watch(step=step, loss=terms["loss"], finite=finite, samples=samples) is Verdict.GO_BACK:
                verdict = Verdict.GO_BACK
        self._pending.clear()
        return verdict

    def _look_at_sources(self, result: StepResult) -> None:
        """The mean loss of each source of samples, over all ranks."""
        count = len(self.recorder.sources)
        sums = np.zeros((2, count))
        if result.by_sample is not None:
            sums[0] = np.bincount(result.sources, weights=result.by_sample.numpy(), minlength=count)
            sums[1] = np.bincount(result.sources, minlength=count)
        totals = self.ranks.sum(sums)
        self.recorder.looked_at_sources(totals[0] / np.maximum(totals[1], 1.0), seen=totals[1] > 0)

    def _go_back(self) -> None:
        limits = self.guard.limits
        suspects = self.name_samples(list(dict.fromkeys(self.guard.suspects)))
        if self.progress.rollbacks >= limits.rollbacks:
            raise DivergedError(
                f"training diverged at step {self.progress.step}: {self.guard.reason}; going back "
                f"{self.progress.rollbacks} times with a lower rate did not help",
                *(f"among the samples of these steps: {place}" for place in suspects[:20]),
                hint="look at these samples, or write a lower learningRate",
            )
        self.recorder.event("rollback", reason=self.guard.reason, step=self.progress.step, samples=suspects[:20])
        before = self.progress
        self.progress = self.saver.go_back(before).model_copy(
            update={
                "rollbacks": before.rollbacks + 1,
                "rate_factor": before.rate_factor * limits.rate_factor,
                "seconds": before.seconds,
            }
        )
        self.guard.forget()

    def _evaluation_is_due(self) -> bool:
        step = self.progress.step
        return step % self.plan.evaluate_every == 0 or step >= self.plan.steps

    def _evaluate(self) -> None:
        """Measures the weights; a checkpoint of the best ones is written at once."""
        self.pulse.phase("evaluate")
        with self.recorder.timed("evaluate"):
            metrics = self.evaluate()
        value = float(metrics[self.plan.metric])
        before, step, name = self.progress, self.progress.step, self.plan.metric
        # Of equal ones the later has seen more.
        best = not is_better(before.best_metric, than=value, name=name) if before.best_metric is not None else True
        improved = is_better(value, before.stale_reference, name=name, by=self.plan.min_delta)
        self._advance(
            evaluated_step=step,
            base_metric=value if before.base_metric is None and step == 0 else before.base_metric,
            best_metric=value if best else before.best_metric,
            best_step=step if best else before.best_step,
            stale_reference=value if improved else before.stale_reference,
            stale_evaluations=0 if improved else before.stale_evaluations + 1,
        )
        self.recorder.evaluated(metrics, best=best, progress=self.progress)
        if is_plateau(self.progress.stale_evaluations, patience=self.plan.patience):
            self.recorder.stands_still(self.progress, patience=self.plan.patience)
        if best:
            self._save()

    def _save(self, *, last: bool = False) -> None:
        before, progress = self.pulse.state.phase, self.progress
        self.pulse.phase("checkpoint")
        measured = progress.evaluated_step == progress.best_step == progress.step
        with self.recorder.timed("checkpoint"):
            self.saver.save(progress, metric=progress.best_metric if measured else None, last=last)
        self._saved_at = time.monotonic()
        self.pulse.phase(before)

    def _ended(self) -> Ending | None:
        progress, plan = self.progress, self.plan
        if progress.step >= plan.steps:
            return Ending.DONE
        if plan.pause_at and progress.step == plan.pause_at:
            return Ending.PAUSE
        if progress.evaluated_step == progress.step and progress.step > 0:
            if plan.patience and progress.stale_evaluations >= plan.patience:
                return Ending.EARLY
            reached = progress.best_metric is not None and progress.best_step == progress.step
            if reached and plan.target is not None and self._reaches(plan.target):
                return Ending.TARGET
        if plan.budget_seconds and progress.seconds >= plan.budget_seconds:
            return Ending.BUDGET
        return None

    def _reaches(self, target: float) -> bool:
        best = self.progress.best_metric
        return best is not None and not is_better(target, than=best, name=self.plan.metric)

    def _stop(self) -> Ending:
        self.pulse.update(stopping=True)
        self._save(last=True)
        return Ending.STOPPED

    def _finish(self, ending: Ending) -> Ending:
        if self.progress.evaluated_step != self.progress.step:
            self._evaluate()
        if self.progress.ended != ending.value:
            self._advance(ended=ending.value)
            self._save(last=True)
        self.pulse.phase("done")
        return ending

    def _advance(self, **fields: Any) -> None:
        self.progress = self.progress.model_copy(update=fields)
