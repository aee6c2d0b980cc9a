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
    from collections.abc import Sequence

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
    """

    shrink_ratio: float = 0.4
    min_text_size: float = 8.0
    low: float = 0.3
    high: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 < self.shrink_ratio < 1.0:
            raise ValueError(f"shrink_ratio must be between 0 and 1, not {self.shrink_ratio}")
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
    threshold = np.zeros((height, width), np.float32)
    threshold_mask = np.zeros((height, width), np.uint8)
    shrink = np.zeros((height, width), np.uint8)
    shrink_mask = np.ones((height, width), np.uint8)
    for polygon, skip in zip(polygons, ignored, strict=True):
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
        if not skip:
            _draw_border(points, threshold, mask=threshold_mask, rule=rule)
        clipped = np.clip(points, 0.0, (width - 1, height - 1))
        cores = [] if skip else _cores(clipped, rule)
        if cores:
            for core in cores:
                cv2.fillPoly(shrink, [core], 1)
        else:
            cv2.fillPoly(shrink_mask, [clipped.astype(np.int32)], 0)
    threshold *= rule.high - rule.low
    threshold += rule.low
    return {
        "threshold_map": threshold,
        "threshold_mask": threshold_mask,
        "shrink_map": shrink,
        "shrink_mask": shrink_mask,
    }


def _following(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([points[1:], points[:1]])


def _area_and_length(points: NDArray[np.float64]) -> tuple[float, float]:
    following = _following(points)
    doubled = points[:, 0] @ following[:, 1] - points[:, 1] @ following[:, 0]
    sides = following - points
    return abs(float(doubled)) / 2.0, float(np.sqrt((sides * sides).sum(axis=1)).sum())


def _offset(points: NDArray[np.float64]) -> pyclipper.PyclipperOffset:
    offset = pyclipper.PyclipperOffset()
    # Clipper works on integers and cuts fractions off; so does PaddleOCR.
    offset.AddPath(points.tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    return offset


def _cores(points: NDArray[np.float64], rule: TargetRule) -> list[NDArray[np.int32]]:
    # the polygons that are left of a box after shrinking; none if it is too small to learn
    area, length = _area_and_length(points)
    if area < 1.0 or np.ptp(points, axis=0).min() < rule.min_text_size:
        return []
    offset = _offset(points)
    left: list[list[list[int]]] = []
    # A box that falls apart or vanishes is tried once more with less shrinking.
    for ratio in np.arange(rule.shrink_ratio, 1.0, rule.shrink_ratio):
        left = offset.Execute(-area * (1.0 - ratio**2) / length)
        if len(left) == 1:
            break
    return [np.asarray(core, np.int32) for core in left]


def _draw_border(
    points: NDArray[np.float64], canvas: NDArray[np.float32], *, mask: NDArray[np.uint8], rule: TargetRule
) -> None:
    area, length = _area_and_length(points)
    if area <= 0.0:
        return
    reach = area * (1.0 - rule.shrink_ratio**2) / length
    grown = _offset(points).Execute(reach)
    if not grown:
        return
    outline = np.asarray(grown[0], np.int32)
    cv2.fillPoly(mask, [outline], 1)
    # The part of the page that each edge reaches, within the outline's bounds: left, top, right, bottom.
    following = _following(points)
    first = np.maximum(np.floor(np.minimum(points, following) - reach), np.maximum(outline.min(axis=0), 0)).astype(int)
    size = canvas.shape[1] - 1, canvas.shape[0] - 1
    last = np.minimum(np.ceil(np.maximum(points, following) + reach), np.minimum(outline.max(axis=0), size)).astype(int)
    edges = zip(points.tolist(), following.tolist(), first.tolist(), last.tolist(), strict=True)
    for start, end, (left, top), (right, bottom) in edges:
        if right >= left and bottom >= top:
            part = canvas[top : bottom + 1, left : right + 1]
            x, y = np.arange(left, right + 1, dtype=np.float32), np.arange(top, bottom + 1, dtype=np.float32)
            np.maximum(part, _nearness(x, y[:, None], start, end, reach=reach), out=part)


def _nearness(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    start: Sequence[float],
    end: Sequence[float],
    *,
    reach: float,
) -> NDArray[np.float32]:
    """How near each pixel is to an edge: 1 on it, 0 at `reach` from it, negative beyond.

    PaddleOCR measures the distance to the line inside the circle over the edge, and to the nearer end outside of it;
    near the ends that is a little more than the distance to the edge. Published models were trained with it.
    """
    length = math.dist(start, end)
    half = length / 2.0
    cosine, sine = ((end[0] - start[0]) / length, (end[1] - start[1]) / length) if length else (1.0, 0.0)
    x = x - np.float32((start[0] + end[0]) / 2.0)
    y = y - np.float32((start[1] + end[1]) / 2.0)
    along = x * np.float32(cosine) + y * np.float32(sine)
    squared = y * np.float32(cosine) - x * np.float32(sine)
    squared *= squared
    np.abs(along, out=along)
    outside = squared + along * along >= np.float32(half * half)
    along -= np.float32(half)
    along *= along
    along *= outside
    squared += along
    np.sqrt(squared, out=squared)
    squared *= np.float32(-1.0 / reach)
    squared += np.float32(1.0)
    return squared
