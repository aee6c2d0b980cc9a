"""Everything that is said about a recognition model on a set, from what it and its base model read there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.evaluation import breakdown
from ocr_finetune_trainer.evaluation.statistics import (
    Calibration,
    Interval,
    bootstrap,
    calibrate,
    clustered,
    paired_bootstrap,
)
from ocr_finetune_trainer.metrics.recognition import RecognitionMetric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.records import ReadSample, RecognitionMeasurement

__all__ = ["METRICS", "RecognitionEvaluation"]

METRICS = ("accuracy", "editSimilarity", "characterErrorRate")
_LISTED = 500


def _figure(metric: str) -> Callable[[NDArray[np.float64]], float]:
    def figure(sums: NDArray[np.float64]) -> float:
        value = RecognitionMetric(sums).scores().as_dict()[metric]
        return float(value or 0.0)

    return figure


def _sums(measurement: RecognitionMeasurement, groups: Sequence[str]) -> NDArray[np.float64]:
    rows = [measurement.metric_of([sample]).sums for sample in measurement.samples]
    rows += [RecognitionMetric.wrong(1).sums] * measurement.unusable
    if not rows:
        return np.zeros((0, len(RecognitionMetric.empty().sums)))
    names = groups or [""] * len(measurement.samples)
    return clustered(np.stack(rows), [*names, *[""] * measurement.unusable])


@dataclass(frozen=True, kw_only=True)
class RecognitionEvaluation:
    """The new model and its base on one set.

    Attributes:
        best: What the new model read.
        base: What the base model read, with its own dictionary; None if there is no base model.
        trained_on: How often each character stands in the training labels.
        groups: What each sample may not be separated from, such as its page; intervals are drawn by it. Empty: every
            sample stands alone.
    """

    best: RecognitionMeasurement
    base: RecognitionMeasurement | None = None
    trained_on: Mapping[str, int] = field(default_factory=dict)
    groups: Sequence[str] = ()

    @cached_property
    def _best_sums(self) -> NDArray[np.float64]:
        return _sums(self.best, self.groups)

    @cached_property
    def _base_sums(self) -> NDArray[np.float64] | None:
        return None if self.base is None else _sums(self.base, self.groups)

    def interval(self, metric: str) -> Interval:
        """A metric of the new model with its interval."""
        return bootstrap(self._best_sums, _figure(metric))

    def improvement(self, metric: str) -> Interval | None:
        """New less base, on the same samples; None without a base model."""
        if self._base_sums is None:
            return None
        return paired_bootstrap(self._best_sums, self._base_sums, _figure(metric))

    @cached_property
    def regressions(self) -> tuple[list[tuple[ReadSample, ReadSample]], list[tuple[ReadSample, ReadSample]]]:
        """(what got worse, what got better), as pairs of new and base."""
        return ([], []) if self.base is None else breakdown.regressions(self.best, self.base)

    @property
    def regressed(self) -> float | None:
        """Part of the set that the base model read and the new one does not."""
        return (
            None
            if self.base is None
            else len(self.regressions[0]) / max(len(self.best.samples) + self.best.unusable, 1)
        )

    @cached_property
    def calibration(self) -> Calibration:
        """Whether the new model's scores mean what they say."""
        samples = self.best.samples
        return calibrate([sample.score for sample in samples], [sample.correct for sample in samples])

    def worst(self, limit: int) -> list[ReadSample]:
        """The wrong samples: the most characters wrong first, and of those the surest."""
        wrong = [sample for sample in self.best.samples if not sample.correct]
        return sorted(wrong, key=lambda s: (-s.distance / max(len(s.label), len(s.prediction), 1), -s.score, s.index))[
            :limit
        ]

    def headline(self) -> dict[str, Any]:
        """The few figures that a table shows."""
        figures: dict[str, Any] = {"best": self.best.metric.scores().as_dict()}
        if self.base is not None:
            figures["base"] = self.base.metric.scores().as_dict()
        return figures

    @cached_property
    def document(self) -> dict[str, Any]:
        """All of it, as JSON values: `metrics.json`."""
        worse, better = self.regressions
        unreadable = self.best.unreadable()
        return {
            "kind": "recognition",
            "samples": len(self.best.samples) + self.best.unusable,
            "unusable": self.best.unusable,
            **self.headline(),
            "intervals": {metric: self.interval(metric).as_dict() for metric in METRICS},
            "improvement": {
                metric: gain.as_dict() for metric in METRICS if (gain := self.improvement(metric)) is not None
            },
            "outOfDictionary": {
                "samples": sum(bool(set(sample.label) - self.best.readable) for sample in self.best.samples),
                "characters": unreadable,
            },
            "bySource": breakdown.by_source(self.best),
            "byLength": breakdown.by_length(self.best),
            "byDifficulty": breakdown.by_difficulty(self.best),
            "byCharacter": breakdown.by_character(self.best),
            "confusions": [
                {"label": pair.label, "prediction": pair.prediction, "count": count}
                for pair, count in breakdown.confusions(self.best.samples)[:_LISTED]
            ],
            "clusters": breakdown.clusters(self.best.samples),
            "likelyWrongLabels": [s.to_json() for s in breakdown.likely_wrong_labels(self.best)],
            "calibration": self.calibration.as_dict(),
            "regressions": {
                "worse": len(worse),
                "better": len(better),
                "samples": [new.to_json() | {"basePrediction": old.prediction} for new, old in worse[:_LISTED]],
            },
            "suggestions": breakdown.suggestions(self.best, trained_on=self.trained_on or None),
        }

    def predictions(self) -> list[dict[str, Any]]:
        """What was read in each sample, for comparisons of runs and formats."""
        rows = [sample.to_json() for sample in self.best.samples]
        if self.base is not None:
            for row, old in zip(rows, self.base.samples, strict=True):
                row["basePrediction"] = old.prediction
        return rows
