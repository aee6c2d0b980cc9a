"""What a detector and a recogniser reach together on whole pages, as the documents' end-to-end figures count it.

A found line belongs to the true line it overlaps best, one to one; it is a hit if their texts are equal. Characters are
counted over all lines: a line that was not found counts with all its characters, and so does one that isn't there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import shapely
from rapidfuzz.distance import Levenshtein

from ocr_finetune_trainer.metrics.polygons import overlaps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["EndToEndCounts", "EndToEndScores", "Line", "compare_page", "half_width", "matched_lines"]

_IDEOGRAPHIC_SPACE = 0x3000
_FULL_WIDTH = range(0xFF01, 0xFF5F)
_TO_HALF_WIDTH = {_IDEOGRAPHIC_SPACE: 0x20} | {code: code - 0xFEE0 for code in _FULL_WIDTH}


def half_width(text: str) -> str:
    """Replaces full-width forms of ASCII and the ideographic space, as PaddleOCR's end-to-end figures do."""
    return text.translate(_TO_HALF_WIDTH)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of text on a page.

    Attributes:
        points: (K, 2), K at least 3, x and y in pixels; its convex hull counts.
        text: What it says.
        ignored: Of a true line: marked as unreadable, so neither wanted nor punished.
    """

    points: ArrayLike
    text: str
    ignored: bool = False


@dataclass(frozen=True, kw_only=True)
class EndToEndScores:
    """The metric itself, each number a share of 1.

    Attributes:
        precision: Hits among the found lines.
        recall: Hits among the true lines.
        f_measure: Harmonic mean of both.
        character_accuracy: One minus edits over true characters; negative when there are more edits than characters.
    """

    precision: float
    recall: float
    f_measure: float
    character_accuracy: float


@dataclass(frozen=True, kw_only=True)
class EndToEndCounts:
    """What was counted on one page or on many; add them up.

    Attributes:
        pages: How many pages.
        hits: Found lines with the true text.
        found: Found lines that count.
        true: True lines that count.
        edits: Characters to insert, delete or replace.
        characters: Characters of the true lines.
    """

    pages: int = 0
    hits: int = 0
    found: int = 0
    true: int = 0
    edits: int = 0
    characters: int = 0

    def __add__(self, other: EndToEndCounts) -> EndToEndCounts:
        names = [field.name for field in fields(self)]
        return EndToEndCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def scores(self) -> EndToEndScores:
        """The metric over everything counted; 0 where there is nothing to count."""
        precision = self.hits / self.found if self.found else 0.0
        recall = self.hits / self.true if self.true else 0.0
        total = precision + recall
        return EndToEndScores(
            precision=precision,
            recall=recall,
            f_measure=2.0 * precision * recall / total if total else 0.0,
            character_accuracy=1.0 - self.edits / self.characters if self.characters else 0.0,
        )


def compare_page(
    true: Sequence[Line],
    found: Sequence[Line],
    *,
    iou: float = 0.5,
    normalize: Callable[[str], str] = half_width,
) -> EndToEndCounts:
    """Compares one page.

    Args:
        true: The page's true lines.
        found: The lines that were read.
        iou: Intersection over union that a pair must reach.
        normalize: Applied to both texts before they are compared.

    Returns:
        The counts. A found line that belongs to an ignored one counts nowhere.
    """
    partner = matched_lines(true, found, iou=iou)
    taken = set(partner.values())

    counts = EndToEndCounts(pages=1)
    for index, line in enumerate(true):
        if not line.ignored:
            other = found[partner[index]] if index in partner else None
            counts += _compare_line(normalize(line.text), None if other is None else normalize(other.text))
    alone = [normalize(line.text) for index, line in enumerate(found) if index not in taken]
    return counts + EndToEndCounts(found=len(alone), edits=sum(map(len, alone)))


def matched_lines(true: Sequence[Line], found: Sequence[Line], *, iou: float = 0.5) -> dict[int, int]:
    """Which found line belongs to which true one, by their indices; the best overlaps first, one to one."""
    both = overlaps(_hulls(true), _hulls(found))
    ratio = both.iou
    reached = ratio >= iou
    # A stable sort keeps the order of the lines among equals, so that the result doesn't depend on the machine.
    order = np.flatnonzero(reached)[np.argsort(-ratio[reached], kind="stable")]
    partner: dict[int, int] = {}
    taken = set[int]()
    for row in order.tolist():
        first, second = int(both.first[row]), int(both.second[row])
        if first not in partner and second not in taken:
            partner[first] = second
            taken.add(second)
    return partner


def _hulls(lines: Sequence[Line]) -> np.ndarray:
    points = [shapely.MultiPoint(np.asarray(line.points, np.float64).reshape(-1, 2)) for line in lines]
    return np.asarray(shapely.convex_hull(np.asarray(points, dtype=object)), dtype=object).reshape(-1)


def _compare_line(text: str, read: str | None) -> EndToEndCounts:
    if read is None:
        return EndToEndCounts(true=1, edits=len(text), characters=len(text))
    return EndToEndCounts(
        true=1,
        found=1,
        hits=int(text == read),
        edits=Levenshtein.distance(text, read),
        characters=len(text),
    )
