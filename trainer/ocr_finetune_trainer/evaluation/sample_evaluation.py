"""The new model and its base on one set, where every sample has its own figures: tables and turned lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ocr_finetune_trainer.evaluation.statistics import Interval, bootstrap, paired_bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["OneSample", "SampleEvaluation", "SampledMeasurement"]


@dataclass(frozen=True, kw_only=True)
class OneSample:
    """What is known of one sample.

    Attributes:
        index: Position in its data set.
        source: Name of its source.
        right: Whether the model was right.
        sums: What it adds to the sums of the set, float64 (K,).
    """

    index: int
    source: str
    right: bool
    sums: NDArray[np.float64]


class SampledMeasurement(Protocol):
    """What a model made of a set."""

    @property
    def unusable(self) -> int:
        """Samples that preparation had to leave out of the set."""

    @property
    def sums(self) -> NDArray[np.float64]:
        """float64 (K,)."""

    def each(self) -> Sequence[OneSample]:
        """Every sample, in the order of the set."""

    @staticmethod
    def scores_of(sums: NDArray[np.float64]) -> dict[str, float | int | None]:
        """The figures under the manifest's names."""


@dataclass(frozen=True, kw_only=True)
class SampleEvaluation:
    """Both models on one set.

    Attributes:
        kind: What kind of model it is.
        metrics: Figures that get an interval, the most important first.
        best: What the new model made of it.
        base: What the base model made of it.
    """

    kind: str
    metrics: tuple[str, ...]
    best: SampledMeasurement
    base: SampledMeasurement

    def _figure(self, metric: str) -> Callable[[NDArray[np.float64]], float]:
        def figure(sums: NDArray[np.float64]) -> float:
            return float(self.best.scores_of(sums)[metric] or 0.0)

        return figure

    @cached_property
    def _sums(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.stack([s.sums for s in self.best.each()]), np.stack([s.sums for s in self.base.each()])

    def interval(self, metric: str) -> Interval:
        """A metric of the new model with its interval."""
        return bootstrap(self._sums[0], self._figure(metric))

    def improvement(self, metric: str) -> Interval:
        """New less base, on the same samples."""
        return paired_bootstrap(*self._sums, self._figure(metric))

    @cached_property
    def lost(self) -> list[int]:
        """Samples that the base model had right and the new one has wrong."""
        pairs = zip(self.best.each(), self.base.each(), strict=True)
        return [new.index for new, old in pairs if old.right and not new.right]

    @property
    def regressed(self) -> float:
        """Part of the set that was lost."""
        return len(self.lost) / max(len(self.best.each()), 1)

    def by_source(self) -> dict[str, dict[str, float | int | None]]:
        """Figures of each source."""
        groups: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
        for sample in self.best.each():
            groups[sample.source].append(sample.sums)
        return {name: self.best.scores_of(np.sum(rows, axis=0)) for name, rows in sorted(groups.items())}

    def headline(self) -> dict[str, dict[str, float | int | None]]:
        """The few figures that a table shows."""
        return {"best": self.best.scores_of(self.best.sums), "base": self.base.scores_of(self.base.sums)}

    @cached_property
    def document(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {
            "kind": self.kind,
            "samples": len(self.best.each()) + self.best.unusable,
            "unusable": self.best.unusable,
            **self.headline(),
            "intervals": {metric: self.interval(metric).as_dict() for metric in self.metrics},
            "improvement": {metric: self.improvement(metric).as_dict() for metric in self.metrics},
            "bySource": self.by_source(),
            "regressions": {"worse": len(self.lost), "indices": self.lost[:1000]},
        }
