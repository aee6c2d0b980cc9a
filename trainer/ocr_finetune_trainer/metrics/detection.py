"""Precision, recall and their harmonic mean of a detector, with PaddleOCR's rules (those of ICDAR 2015).

A found region is right if it overlaps a true one by more than half of their union, one to one, first come first served.
Regions marked as unreadable are neither wanted nor punished: a found region that lies mostly in one doesn't count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from ocr_finetune_trainer.metrics.polygons import overlaps, to_geometries, usable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["DetectionCounts", "DetectionScores", "match_page"]


@dataclass(frozen=True, kw_only=True)
class DetectionScores:
    """The metric itself.

    Attributes:
        precision: Right ones among the found.
        recall: Found ones among the true.
        hmean: Harmonic mean of both; 0 if both are.
    """

    precision: float
    recall: float
    hmean: float


@dataclass(frozen=True, kw_only=True)
class DetectionCounts:
    """What was counted on one page or on many; add them up, also those of other processes.

    Attributes:
        pages: How many pages.
        truths: True regions that count.
        found: Found regions that count.
        matched: Pairs of both.
        ignored_truths: True regions marked as unreadable.
        ignored_found: Found regions that lie in those.
        invalid_truths: True regions without an inside (self-crossing or flat), left out as PaddleOCR does.
        invalid_found: Found regions without an inside.
    """

    pages: int = 0
    truths: int = 0
    found: int = 0
    matched: int = 0
    ignored_truths: int = 0
    ignored_found: int = 0
    invalid_truths: int = 0
    invalid_found: int = 0

    def __add__(self, other: DetectionCounts) -> DetectionCounts:
        names = [field.name for field in fields(self)]
        return DetectionCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def scores(self) -> DetectionScores:
        """The metric over everything counted; 0 where there is nothing to count."""
        precision = self.matched / self.found if self.found else 0.0
        recall = self.matched / self.truths if self.truths else 0.0
        total = precision + recall
        return DetectionScores(
            precision=precision, recall=recall, hmean=2.0 * precision * recall / total if total else 0.0
        )


@dataclass(frozen=True, kw_only=True)
class PageMatch:
    """One page.

    Attributes:
        counts: What counts.
        pairs: Indices of (true, found) regions that belong together, as given to `match_page`.
    """

    counts: DetectionCounts
    pairs: tuple[tuple[int, int], ...]


def match_page(
    truths: Sequence[ArrayLike],
    ignored: Sequence[bool],
    found: Sequence[ArrayLike],
    *,
    iou: float = 0.5,
    inside: float = 0.5,
) -> PageMatch:
    """Compares one page.

    Args:
        truths: True regions, each (K, 2).
        ignored: For each, whether it is marked as unreadable.
        found: Found regions, each (K, 2).
        iou: Intersection over union that a pair must exceed.
        inside: Share of a found region's area in an unreadable one above which it doesn't count.

    Returns:
        The counts and the pairs.

    Raises:
        ValueError: `truths` and `ignored` differ in length.
    """
    if len(truths) != len(ignored):
        raise ValueError(f"{len(truths)} true regions but {len(ignored)} marks")
    true_shapes, found_shapes = to_geometries(truths), to_geometries(found)
    true_kept, found_kept = np.flatnonzero(usable(true_shapes)), np.flatnonzero(usable(found_shapes))
    skip = np.asarray(ignored, dtype=bool)[true_kept]
    both = overlaps(true_shapes[true_kept], found_shapes[found_kept])

    in_ignored = skip[both.first] & (both.shared > inside * both.second_areas[both.second])
    lost = np.zeros(len(found_kept), dtype=bool)
    lost[both.second[in_ignored]] = True

    pairs: list[tuple[int, int]] = []
    taken_true, taken_found = set[int](), set[int]()
    candidates = (both.iou > iou) & ~skip[both.first] & ~lost[both.second]
    for true, other in zip(both.first[candidates].tolist(), both.second[candidates].tolist(), strict=True):
        if true not in taken_true and other not in taken_found:
            taken_true.add(true)
            taken_found.add(other)
            pairs.append((int(true_kept[true]), int(found_kept[other])))
    counts = DetectionCounts(
        pages=1,
        truths=int((~skip).sum()),
        found=int((~lost).sum()),
        matched=len(pairs),
        ignored_truths=int(skip.sum()),
        ignored_found=int(lost.sum()),
        invalid_truths=len(truths) - len(true_kept),
        invalid_found=len(found) - len(found_kept),
    )
    return PageMatch(counts=counts, pairs=tuple(pairs))
