"""How sure a figure is: bootstrap intervals, and whether a model's scores mean what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["Calibration", "Interval", "bootstrap", "calibrate", "clustered", "paired_bootstrap"]

RESAMPLES = 1000
CONFIDENCE = 0.95
WANTED_ACCURACY = 0.99
_BINS = 10
_CURVE_POINTS = 50


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its interval.

    Attributes:
        value: The figure on the whole set.
        low: Lower end of the interval of `CONFIDENCE`.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """As JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


def clustered(sums: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64]:
    """Adds up what belongs together, such as the lines of a page, so that it is drawn together.

    Lines of a page are read well or badly together; drawn one by one they would make an interval look narrower than it
    is.

    Args:
        sums: (N, K), what each sample adds to K sums.
        groups: Name of each sample's group; "" for one that stands alone.

    Returns:
        (groups, K).

    Raises:
        ValueError: There is not one name a sample.
    """
    if len(groups) != len(sums):
        raise ValueError(f"{len(sums)} samples but {len(groups)} groups")
    numbers: dict[str, int] = {}
    keys = [numbers.setdefault(name or f"\0{i}", len(numbers)) for i, name in enumerate(groups)]
    totals = np.zeros((len(numbers), sums.shape[1]), dtype=np.float64)
    np.add.at(totals, keys, sums)
    return totals


def bootstrap(sums: NDArray[np.float64], figure: Callable[[NDArray[np.float64]], float], *, seed: int = 0) -> Interval:
    """Percentile bootstrap of a figure that follows from sums over samples.

    Args:
        sums: (N, K), what each sample adds to K sums.
        figure: K sums to the figure.
        seed: Seed of the resampling.
    """
    value, figures = _resample([sums], lambda totals: figure(totals[0]), seed=seed)
    return _interval(value, figures)


def paired_bootstrap(
    new: NDArray[np.float64],
    old: NDArray[np.float64],
    figure: Callable[[NDArray[np.float64]], float],
    *,
    seed: int = 0,
) -> Interval:
    """Interval of `figure(new) - figure(old)` where both were measured on the same samples.

    Each resample draws the same samples for both: what is hard for both does not widen the interval.

    Args:
        new: (N, K) sums of the new model.
        old: (N, K) sums of the old model, rows in the same order.
        figure: K sums to the figure.
        seed: Seed of the resampling.

    Raises:
        ValueError: The shapes differ.
    """
    if new.shape != old.shape:
        raise ValueError(f"paired samples must be the same ones: {new.shape} and {old.shape}")
    value, figures = _resample([new, old], lambda totals: figure(totals[0]) - figure(totals[1]), seed=seed)
    return _interval(value, figures)


def _resample(
    sums: Sequence[NDArray[np.float64]], figure: Callable[[list[NDArray[np.float64]]], float], *, seed: int
) -> tuple[float, NDArray[np.float64]]:
    count = len(sums[0])
    value = figure([rows.sum(axis=0) for rows in sums])
    if count == 0:
        return value, np.asarray([value])
    rng = np.random.default_rng(seed)
    columns = [np.ascontiguousarray(rows.T) for rows in sums]
    figures = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        # How often each sample is drawn, instead of which: one matrix product a resample.
        drawn = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        figures[i] = figure([rows @ drawn for rows in columns])
    return value, figures


def _interval(value: float, figures: NDArray[np.float64]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(figures, (tail, 1 - tail))
    return Interval(value=float(value), low=float(low), high=float(high))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether scores mean what they say, and from which score on a text can be trusted.

    Attributes:
        bins: Lower end, samples, mean score and accuracy of each tenth of the scale.
        expected_error: Mean distance of score and accuracy over the bins, weighted by samples.
        coverage: Points of the curve: part of the set that is kept, its accuracy, and the least score kept.
        wanted_accuracy: What the recommended threshold aims at.
        threshold: Reject texts below it; None if no threshold reaches the wanted accuracy.
        threshold_coverage: Part of the set that it keeps.
        threshold_accuracy: Accuracy of what it keeps.
    """

    bins: tuple[dict[str, float], ...]
    expected_error: float
    coverage: tuple[dict[str, float], ...]
    wanted_accuracy: float
    threshold: float | None
    threshold_coverage: float
    threshold_accuracy: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "bins": list(self.bins),
            "expectedError": self.expected_error,
            "coverage": list(self.coverage),
            "wantedAccuracy": self.wanted_accuracy,
            "threshold": self.threshold,
            "thresholdCoverage": self.threshold_coverage,
            "thresholdAccuracy": self.threshold_accuracy,
        }


def calibrate(
    scores: Sequence[float], correct: Sequence[bool], *, wanted_accuracy: float = WANTED_ACCURACY
) -> Calibration:
    """Compares scores with what was right.

    Args:
        scores: Confidence of each sample, 0 to 1.
        correct: Whether it was right.
        wanted_accuracy: What the recommended threshold aims at.
    """
    s, c = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    order = np.argsort(-s, kind="stable")
    s, c = s[order], c[order]
    kept = np.arange(1, len(s) + 1)
    accuracy = np.cumsum(c) / np.maximum(kept, 1)
    # A threshold keeps all samples of its score or none of them.
    ends = np.flatnonzero(np.append(s[1:] != s[:-1], True)) if len(s) else np.asarray([], dtype=np.int64)
    bins = _bins(s, c)
    good = ends[accuracy[ends] >= wanted_accuracy]
    best = int(good[-1]) if len(good) else None
    shown = ends[np.unique(np.linspace(0, len(ends) - 1, _CURVE_POINTS).round().astype(int))] if len(ends) else ends
    return Calibration(
        bins=bins,
        expected_error=sum(b["samples"] * abs(b["score"] - b["accuracy"]) for b in bins) / max(len(s), 1),
        coverage=tuple(
            {"coverage": float(kept[i] / len(s)), "accuracy": float(accuracy[i]), "score": float(s[i])} for i in shown
        ),
        wanted_accuracy=wanted_accuracy,
        threshold=None if best is None else float(s[best]),
        threshold_coverage=0.0 if best is None else float(kept[best] / len(s)),
        threshold_accuracy=0.0 if best is None else float(accuracy[best]),
    )


def _bins(scores: NDArray[np.float64], correct: NDArray[np.float64]) -> tuple[dict[str, float], ...]:
    number = np.minimum((scores * _BINS).astype(np.int64), _BINS - 1)
    bins = []
    for i in range(_BINS):
        inside = number == i
        if inside.any():
            bins.append(
                {
                    "from": i / _BINS,
                    "samples": int(inside.sum()),
                    "score": float(scores[inside].mean()),
                    "accuracy": float(correct[inside].mean()),
                }
            )
    return tuple(bins)
