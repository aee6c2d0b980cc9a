"""Where a detector fails: by overlap that is asked for, by size of the text, by source, page by page."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.evaluation.detection import IOUS, DetectionMeasurement, counts_of, sums_of
from ocr_finetune_trainer.evaluation.detection_errors import PageMistakes, error_kinds, mistakes_of, suggestions
from ocr_finetune_trainer.evaluation.statistics import Interval, bootstrap, paired_bootstrap
from ocr_finetune_trainer.metrics.detection import match_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.detection import DetectedPage

__all__ = ["METRICS", "SIZES", "DetectionEvaluation", "text_height"]

METRICS = ("precision", "recall", "hmean")
SIZES = (("under 10", 0, 10), ("10-16", 10, 16), ("16-32", 16, 32), ("32-64", 32, 64), ("64+", 64, float("inf")))

Scores = dict[str, float | int | None]


def text_height(points: NDArray[Any]) -> float:
    """Height of a text in pixels: the shorter side of the least rectangle around its outline."""
    import cv2

    return float(min(cv2.minAreaRect(np.asarray(points, dtype=np.float32).reshape(-1, 2))[1]))


def _size(points: NDArray[Any]) -> str:
    height = text_height(points)
    return next(name for name, low, high in SIZES if low <= height < high)


def found_truths(page: DetectedPage) -> frozenset[int]:
    """Which true texts of a page are found."""
    pairs = match_page(page.truths, page.ignored, [region.points for region in page.found]).pairs
    return frozenset(true for true, _ in pairs)


def by_size(measurement: DetectionMeasurement) -> dict[str, Scores]:
    """Recall of true texts by their height in pixels."""
    wanted: dict[str, int] = defaultdict(int)
    found: dict[str, int] = defaultdict(int)
    for page in measurement.pages:
        hits = found_truths(page)
        for index, (points, ignored) in enumerate(zip(page.truths, page.ignored, strict=True)):
            if not ignored:
                name = _size(points)
                wanted[name] += 1
                found[name] += index in hits
    return {name: {"texts": wanted[name], "recall": found[name] / wanted[name]} for name, *_ in SIZES if wanted[name]}


def by_source(measurement: DetectionMeasurement) -> dict[str, Scores]:
    """Figures of each source."""
    groups: dict[str, list[DetectedPage]] = defaultdict(list)
    for page in measurement.pages:
        groups[page.source].append(page)
    return {name: DetectionMeasurement.scores_of(sums_of(counts_of(pages))) for name, pages in sorted(groups.items())}


def by_iou(measurement: DetectionMeasurement) -> dict[str, Scores]:
    """Figures for each overlap from which a text counts as found."""
    return {f"{iou:g}": DetectionMeasurement.scores_of(sums_of(counts_of(measurement.pages, iou=iou))) for iou in IOUS}


def _figure(metric: str) -> Callable[[NDArray[np.float64]], float]:
    def figure(sums: NDArray[np.float64]) -> float:
        return float(DetectionMeasurement.scores_of(sums)[metric] or 0.0)

    return figure


def _sums(measurement: DetectionMeasurement) -> NDArray[np.float64]:
    return np.stack([sums_of(page.counts()) for page in measurement.pages])


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation:
    """The new detector and its base on one set.

    Attributes:
        best: What the new model found.
        base: What the base model found; None if there is no base model.
        other_rules: The new model's figures under the other usual size rules.
    """

    best: DetectionMeasurement
    base: DetectionMeasurement | None
    other_rules: dict[str, Scores]

    @cached_property
    def _best_sums(self) -> NDArray[np.float64]:
        return _sums(self.best)

    @cached_property
    def _base_sums(self) -> NDArray[np.float64] | None:
        return None if self.base is None else _sums(self.base)

    def interval(self, metric: str) -> Interval:
        """A metric of the new model with its interval; pages are drawn, not texts, for texts of a page are alike."""
        return bootstrap(self._best_sums, _figure(metric))

    def improvement(self, metric: str) -> Interval | None:
        """New less base, on the same pages; None without a base model."""
        if self._base_sums is None:
            return None
        return paired_bootstrap(self._best_sums, self._base_sums, _figure(metric))

    @cached_property
    def lost(self) -> dict[int, frozenset[int]]:
        """By page, the true texts that the base model found and the new one does not."""
        if self.base is None:
            return {}
        lost = {
            new.index: found_truths(old) - found_truths(new)
            for new, old in zip(self.best.pages, self.base.pages, strict=True)
        }
        return {index: texts for index, texts in lost.items() if texts}

    @property
    def regressed(self) -> float | None:
        """Part of the true texts that the base model found and the new one does not."""
        if self.base is None:
            return None
        return sum(map(len, self.lost.values())) / max(self.best.counts.truths, 1)

    @cached_property
    def mistakes(self) -> dict[int, PageMistakes]:
        """The new model's mistakes, by page."""
        return {page.index: mistakes_of(page) for page in self.best.pages}

    def unlabelled(self) -> list[DetectedPage]:
        """Pages where the model is sure of texts that have no label; the most such texts first."""
        pages = [page for page in self.best.pages if self.mistakes[page.index].unlabelled]
        return sorted(pages, key=lambda page: (-len(self.mistakes[page.index].unlabelled), page.index))

    def worse(self) -> list[DetectedPage]:
        """Pages on which the base model found texts that the new one does not; the most such texts first."""
        pages = [page for page in self.best.pages if page.index in self.lost]
        return sorted(pages, key=lambda page: (-len(self.lost[page.index]), page.index))

    def worst(self, limit: int) -> list[DetectedPage]:
        """Pages by how many texts are missed or found where there is none."""

        def mistakes(page: DetectedPage) -> int:
            counts = page.counts()
            return counts.truths + counts.found - 2 * counts.matched

        wrong = [page for page in self.best.pages if mistakes(page) or page.problem]
        return sorted(wrong, key=lambda page: (-mistakes(page), page.index))[:limit]

    def headline(self) -> dict[str, Any]:
        """The few figures that a table shows."""
        figures: dict[str, Any] = {"best": DetectionMeasurement.scores_of(self.best.sums)}
        if self.base is not None:
            figures["base"] = DetectionMeasurement.scores_of(self.base.sums)
        return figures

    @cached_property
    def document(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        sizes, sources = by_size(self.best), by_source(self.best)
        mistakes = list(self.mistakes.values())
        return {
            "kind": "detection",
            "samples": len(self.best.pages) + self.best.unusable,
            "unusable": self.best.unusable,
            **self.headline(),
            "intervals": {metric: self.interval(metric).as_dict() for metric in METRICS},
            "improvement": {
                metric: gain.as_dict() for metric in METRICS if (gain := self.improvement(metric)) is not None
            },
            "byIou": by_iou(self.best),
            "bySize": sizes,
            "bySource": sources,
            "errorKinds": error_kinds(mistakes),
            "likelyUnlabelled": {str(page.index): list(page.unlabelled) for page in mistakes if page.unlabelled},
            "suggestions": suggestions(
                overall=self.headline()["best"], by_size=sizes, by_source=sources, mistakes=mistakes
            ),
            "otherSizeRules": self.other_rules,
            "regressions": {
                "worse": sum(map(len, self.lost.values())),
                "pages": {str(index): sorted(texts) for index, texts in self.lost.items()},
            },
        }

    def predictions(self) -> list[dict[str, Any]]:
        """What was found on each page."""
        return [
            {
                "index": page.index,
                "source": page.source,
                "found": [{"points": region.points.tolist(), "score": round(region.score, 4)} for region in page.found],
                **({"problem": page.problem} if page.problem else {}),
            }
            for page in self.best.pages
        ]
