"""What a DB detector learns on a page: shrunken text cores, and a threshold that rises towards text borders.

The maps are those of PaddleOCR (`MakeShrinkMap`, `MakeBorderMap`), which follow sections 3.3 and 3.4 of
https://arxiv.org/abs/1911.08947, point by point. PaddleOCR measures the distance of every pixel around a box to every
edge of it; a pixel further from an edge than the border is wide can't change the map, so here each edge looks at its
own surroundings only, and what depends on a column or a row alone is computed once for it. That gives the same numbers
in a fraction of the time.
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

_STEEP = 1e3  # how many times larger a ring's coordinates are drawn: a ring a thousandth of a pixel wide is enough
_EDGES_AT_ONCE = 256  # their terms take 2 MB at 640 pixels


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
    learnt: list[_Outline] = []
    for polygon, skip in zip(polygons, ignored, strict=True):
        outline = _Outline(np.asarray(polygon, np.float64).reshape(-1, 2).tolist())
        clipped = outline.clipped(width - 1, height - 1)
        cores = []
        if not skip:
            learnt.append(outline)
            cores = _cores(clipped, rule)
        if cores:
            for core in cores:
                cv2.fillPoly(shrink, [core], 1)
        else:
            cv2.fillPoly(shrink_mask, [np.array(clipped.points).astype(np.int32)], 0)
    _draw_borders(learnt, threshold, mask=threshold_mask, rule=rule)
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


def _draw_borders(
    outlines: Sequence[_Outline], canvas: NDArray[np.float32], *, mask: NDArray[np.uint8], rule: TargetRule
) -> None:
    ratio = rule.shrink_ratio if rule.border_ratio is None else rule.border_ratio
    rows, columns = canvas.shape
    edges: list[tuple[float, ...]] = []
    regions: list[tuple[int, int, int, int]] = []
    for outline in outlines:
        reach = outline.area * (1.0 - ratio**2) / outline.length if outline.area > 0.0 else 0.0
        grown = outline.grown(reach) if reach else []
        if not grown:
            continue
        cv2.fillPoly(mask, [grown[0]], 1)
        x, y, width, height = cv2.boundingRect(grown[0])
        region = (max(x, 0), max(y, 0), min(x + width, columns), min(y + height, rows))
        for start, end in outline.edges():
            edges.append((*start, *end, reach))
            regions.append(region)
    for at in range(0, len(edges), _EDGES_AT_ONCE):
        some = slice(at, at + _EDGES_AT_ONCE)
        _draw_edges(np.array(edges[some]), np.array(regions[some]), canvas, rule=rule)


def _draw_edges(
    edges: NDArray[np.float64], regions: NDArray[np.int64], canvas: NDArray[np.float32], *, rule: TargetRule
) -> None:
    """Raises the threshold around edges: `high` on one, `low` at its reach from it.

    PaddleOCR measures the distance to the line inside the circle over an edge, and to the nearer end outside of it;
    near the ends that is a little more than the distance to the edge. Published models were trained with it. The end is
    never nearer than the line, so an edge is drawn as its line inside the circle, and a cone around each end.

    All terms of one coordinate are computed for all edges at once: what is left for each edge are a few operations on
    the part of the page that it reaches.

    Args:
        edges: float64 (N, 5): x and y of the start, x and y of the end, and the reach.
        regions: int64 (N, 4): left, top, right and bottom of where its box may draw.
        canvas: The threshold map, changed in place.
        rule: The thresholds.
    """
    start, end, reach = edges[:, :2], edges[:, 2:4], edges[:, 4:]
    slope = (rule.high - rule.low) / reach
    middle, along = (start + end) / 2.0, end - start
    length = np.hypot(along[:, :1], along[:, 1:])
    along = np.divide(along, length, out=np.tile((1.0, 0.0), (len(edges), 1)), where=length > 0.0)
    half = length / 2.0
    across = slope * along[:, ::-1] * (-1.0, 1.0)
    factors = [np.broadcast_to(slope, across.shape), np.full_like(across, _STEEP)]
    zeros = [middle, start, middle]
    line_x, cone_x, ring_x = _terms([across, *factors], zeros, axis=0, size=canvas.shape[1])
    line_y, cone_y, ring_y = _terms([across, *factors], zeros, axis=1, size=canvas.shape[0])
    # Below zero inside the circle; outside of it, soon more than any threshold.
    ring_y -= ((_STEEP * half) ** 2).astype(np.float32)

    room = half * np.abs(along) + reach * np.abs(along[:, ::-1])
    line_at = _windows(middle - room, middle + room, regions)
    cone_at = _windows(start - reach, start + reach, regions)
    high = np.float32(rule.high)
    for n, ((x1, y1, x2, y2), (u1, v1, u2, v2)) in enumerate(zip(line_at, cone_at, strict=True)):
        if x2 > x1 and y2 > y1:
            distance = line_y[n, y1:y2, None] + line_x[n, x1:x2]
            np.abs(distance, out=distance)
            cv2.max(distance, ring_y[n, y1:y2, None] + ring_x[n, x1:x2], distance)
            np.subtract(high, distance, out=distance)
            part = canvas[y1:y2, x1:x2]
            cv2.max(part, distance, part)
        if u2 > u1 and v2 > v1:
            distance = cone_y[n, v1:v2, None] + cone_x[n, u1:u2]
            cv2.sqrt(distance, distance)
            np.subtract(high, distance, out=distance)
            part = canvas[v1:v2, u1:u2]
            cv2.max(part, distance, part)


def _terms(
    factors: Sequence[NDArray[np.float64]], zeros: Sequence[NDArray[np.float64]], *, axis: int, size: int
) -> NDArray[np.float32]:
    """The terms of one coordinate, of lines, cones and rings: (3, N, `size`).

    Each is a factor times the distance of a pixel from a zero, (N, 2) both; squared for cones and rings.
    """
    factor = np.stack([values[:, axis] for values in factors])
    shift = -factor * np.stack([values[:, axis] for values in zeros])
    pixels = np.stack([np.arange(size, dtype=np.float32), np.ones(size, np.float32)])
    terms = np.stack([factor, shift], axis=-1).astype(np.float32) @ pixels
    np.square(terms[1:], out=terms[1:])
    return np.asarray(terms)


def _windows(low: NDArray[np.float64], high: NDArray[np.float64], regions: NDArray[np.int64]) -> list[list[int]]:
    """Left, top, right and bottom of the pixels between corners (N, 2), within regions."""
    least = np.maximum(np.ceil(low).astype(np.int64), regions[:, :2])
    most = np.minimum(np.floor(high).astype(np.int64) + 1, regions[:, 2:])
    windows: list[list[int]] = np.hstack([least, most]).tolist()
    return windows
