"""What a DB detector learns on a page: shrunken text cores, and a threshold that rises towards text borders.

The maps are those of PaddleOCR (`MakeShrinkMap`, `MakeBorderMap`), which follow sections 3.3 and 3.4 of
https://arxiv.org/abs/1911.08947, point by point. PaddleOCR measures the distance of every pixel around a box to every
edge of it; a pixel further from an edge than the border is wide can't change the map, so here each edge looks at its
own surroundings only, which gives the same numbers in a fraction of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pyclipper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["TargetRule", "db_targets"]


@dataclass(frozen=True, kw_only=True)
class TargetRule:
    """How boxes become maps; the defaults are those of all PP-OCR detectors.

    Attributes:
        shrink_ratio: How far a box shrinks to its core: 0 leaves nothing, 1 all of it.
        min_text_size: A box with a side under this many pixels is not learnt.
        low: The threshold far from text.
        high: The threshold on a border of text.
        border_ratio: The ratio that says how wide borders are; None for that of the cores.
    """

    shrink_ratio: float = 0.4
    min_text_size: float = 8.0
    low: float = 0.3
    high: float = 0.7
    border_ratio: float | None = None

    def __post_init__(self) -> None:
        for name, ratio in (("shrink_ratio", self.shrink_ratio), ("border_ratio", self.border_ratio)):
            if ratio is not None and not 0.0 < ratio < 1.0:
                raise ValueError(f"{name} must be between 0 and 1, not {ratio}")
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ValueError(f"0 ≤ low < high ≤ 1 must hold, not low={self.low}, high={self.high}")


def db_targets(
    polygons: Sequence[NDArray[np.floating]],
    ignored: Sequence[bool],
    *,
    height: int,
    width: int,
    rule: TargetRule | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Draws the four maps of a page.

    Args:
        polygons: Text regions, each (K, 2) as x and y in pixels, K at least 3; parts outside the page are allowed.
        ignored: For each, whether it is to be neither learnt nor punished.
        height: Rows of the page.
        width: Columns of the page.
        rule: The drawing rule.

    Returns:
        (`height`, `width`) each: `shrink_map` uint8, 1 in cores; `shrink_mask` uint8, 0 where nothing is learnt about
        cores; `threshold_map` float32 in [`low`, `high`]; `threshold_mask` uint8, 1 around borders.

    Raises:
        ValueError: `polygons` and `ignored` differ in length.
    """
    rule = rule or TargetRule()
    threshold = np.full((height, width), rule.low, np.float32)
    threshold_mask = np.zeros((height, width), np.uint8)
    shrink = np.zeros((height, width), np.uint8)
    shrink_mask = np.ones((height, width), np.uint8)
    for polygon, skip in zip(polygons, ignored, strict=True):
        outline = _Outline(np.asarray(polygon, np.float64).reshape(-1, 2).tolist())
        clipped = outline.clipped(width - 1, height - 1)
        cores = []
        if not skip:
            _draw_border(outline, threshold, mask=threshold_mask, rule=rule)
            cores = _cores(clipped, rule)
        if cores:
            for core in cores:
                cv2.fillPoly(shrink, [core], 1)
        else:
            cv2.fillPoly(shrink_mask, [np.array(clipped.points).astype(np.int32)], 0)
    return {
        "threshold_map": threshold,
        "threshold_mask": threshold_mask,
        "shrink_map": shrink,
        "shrink_mask": shrink_mask,
    }


class _Outline:
    """A polygon as Python numbers, which for a handful of points are faster than arrays.

    Args:
        points: x and y of each corner.

    Attributes:
        area: Its area.
        length: Length of its edges.
    """

    def __init__(self, points: list[list[float]]) -> None:
        self.points = points
        doubled = self.length = 0.0
        for (x1, y1), (x2, y2) in self.edges():
            doubled += x1 * y2 - x2 * y1
            self.length += math.hypot(x2 - x1, y2 - y1)
        self.area = abs(doubled) / 2.0
        self._clipper: pyclipper.PyclipperOffset | None = None

    def edges(self) -> Iterator[tuple[list[float], list[float]]]:
        """The two ends of each edge."""
        return zip(self.points, self.points[1:] + self.points[:1], strict=True)

    def clipped(self, right: float, bottom: float) -> _Outline:
        """With every corner brought into [0, right] and [0, bottom]; itself if they all are."""
        points = [[min(max(x, 0.0), right), min(max(y, 0.0), bottom)] for x, y in self.points]
        return self if points == self.points else _Outline(points)

    def smaller_side(self) -> float:
        """Width or height of the upright box around it, whichever is smaller."""
        xs, ys = [x for x, _ in self.points], [y for _, y in self.points]
        return min(max(xs) - min(xs), max(ys) - min(ys))

    def grown(self, distance: float) -> list[NDArray[np.int32]]:
        """The polygons (K, 2) that are left after moving every edge outwards; a negative distance shrinks."""
        if self._clipper is None:
            self._clipper = pyclipper.PyclipperOffset()
            # Clipper works on integers and cuts fractions off; so does PaddleOCR.
            self._clipper.AddPath(self.points, pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
        return [np.array(path, np.int32) for path in self._clipper.Execute(distance)]


def _cores(outline: _Outline, rule: TargetRule) -> list[NDArray[np.int32]]:
    # the polygons that are left of a box after shrinking; none if it is too small to learn
    if outline.area < 1.0 or outline.smaller_side() < rule.min_text_size:
        return []
    left: list[NDArray[np.int32]] = []
    # A box that falls apart or vanishes is tried once more with less shrinking.
    for ratio in np.arange(rule.shrink_ratio, 1.0, rule.shrink_ratio).tolist():
        left = outline.grown(-outline.area * (1.0 - ratio**2) / outline.length)
        if len(left) == 1:
            break
    return left


def _draw_border(outline: _Outline, canvas: NDArray[np.float32], *, mask: NDArray[np.uint8], rule: TargetRule) -> None:
    if outline.area <= 0.0:
        return
    ratio = rule.shrink_ratio if rule.border_ratio is None else rule.border_ratio
    reach = outline.area * (1.0 - ratio**2) / outline.length
    grown = outline.grown(reach)
    if not grown:
        return
    cv2.fillPoly(mask, [grown[0]], 1)
    left, top = np.maximum(grown[0].min(axis=0), 0).tolist()
    right, bottom = np.minimum(grown[0].max(axis=0), (canvas.shape[1] - 1, canvas.shape[0] - 1)).tolist()
    columns = np.arange(canvas.shape[1], dtype=np.float32)
    rows = np.arange(canvas.shape[0], dtype=np.float32)[:, None]
    for start, end in outline.edges():
        # the part of the page that this edge reaches, within the bounds of the grown outline
        x1 = max(left, math.floor(min(start[0], end[0]) - reach))
        x2 = min(right, math.ceil(max(start[0], end[0]) + reach)) + 1
        y1 = max(top, math.floor(min(start[1], end[1]) - reach))
        y2 = min(bottom, math.ceil(max(start[1], end[1]) + reach)) + 1
        if x2 > x1 and y2 > y1:
            part, x, y = canvas[y1:y2, x1:x2], columns[x1:x2], rows[y1:y2]
            np.maximum(part, _heights(x, y, start, end, reach=reach, rule=rule), out=part)


def _heights(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    start: Sequence[float],
    end: Sequence[float],
    *,
    reach: float,
    rule: TargetRule,
) -> NDArray[np.float32]:
    """The threshold around an edge: `high` on it, `low` at `reach` from it, less beyond.

    PaddleOCR measures the distance to the line inside the circle over the edge, and to the nearer end outside of it;
    near the ends that is a little more than the distance to the edge. Published models were trained with it.

    Args:
        x: float32 (W,), columns.
        y: float32 (H, 1), rows.
        start: One end, x and y.
        end: The other end.
        reach: How far a border reaches.
        rule: The thresholds.

    Returns:
        float32 (H, W).
    """
    length = math.dist(start, end)
    half = length / 2.0
    cosine, sine = ((end[0] - start[0]) / length, (end[1] - start[1]) / length) if length else (1.0, 0.0)
    x = x - (start[0] + end[0]) / 2.0
    y = y - (start[1] + end[1]) / 2.0
    along = x * cosine + y * sine
    squared = y * cosine - x * sine
    squared *= squared
    np.abs(along, out=along)
    outside = squared + along * along >= half * half
    along -= half
    along *= along
    along *= outside
    squared += along
    np.sqrt(squared, out=squared)
    squared *= (rule.low - rule.high) / reach
    squared += rule.high
    return squared
