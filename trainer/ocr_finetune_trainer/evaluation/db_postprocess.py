"""From a detector's probability map to boxes, with the numbers that `paddleocr` 3.7 and PaddleOCR's evaluation give.

The model predicts the core of each text region; the contour of a core is measured, scored and grown back to the
region's size (section 3.5 of https://arxiv.org/abs/1911.08947).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
import pyclipper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["BoxType", "DBPostProcess", "Region", "ScoreMode"]

# A core whose shorter side is under this many map pixels is noise; a grown region has two pixels more.
_MIN_CORE = 3
_MIN_REGION = _MIN_CORE + 2
_DILATION = np.ones((2, 2), np.uint8)
# How far an approximated contour may stray, as a share of its length.
_APPROXIMATION = 0.002


class ScoreMode(StrEnum):
    """Over what the probability is averaged: the core's rectangle, or the core itself."""

    FAST = "fast"
    SLOW = "slow"


class BoxType(StrEnum):
    """What a region is given as: a rectangle of four corners, or a polygon of any number."""

    QUAD = "quad"
    POLYGON = "poly"


@dataclass(frozen=True, kw_only=True)
class Region:
    """A text region found on a page.

    Attributes:
        points: int32 (K, 2), x and y in pixels of the page; of a rectangle the corners top left, top right, bottom
            right, bottom left.
        score: Mean probability of its core.
    """

    points: NDArray[np.int32]
    score: float


@dataclass(frozen=True, kw_only=True)
class DBPostProcess:
    """The settings of post-processing, under PaddleOCR's names; the defaults are those of `paddleocr`'s pipeline.

    Attributes:
        thresh: A pixel over this is part of a core.
        box_thresh: A core whose mean probability is under this is dropped.
        unclip_ratio: How far a core grows, as a multiple of its area over its length.
        max_candidates: At most this many contours are looked at.
        use_dilation: Whether cores grow by one pixel first, which joins broken ones.
        score_mode: Over what the mean probability is taken; polygons always use their own outline.
        box_type: What regions are given as.
    """

    thresh: float = 0.3
    box_thresh: float = 0.6
    unclip_ratio: float = 1.5
    max_candidates: int = 1000
    use_dilation: bool = False
    score_mode: ScoreMode = ScoreMode.FAST
    box_type: BoxType = BoxType.QUAD

    def __post_init__(self) -> None:
        for name in ("thresh", "box_thresh"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if self.unclip_ratio <= 0.0:
            raise ValueError(f"unclip_ratio must be positive, not {self.unclip_ratio}")
        if self.max_candidates < 1:
            raise ValueError(f"max_candidates must be at least 1, not {self.max_candidates}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From values under PaddleOCR's names, as `inference.yml` has them; what is missing keeps its default.

        Raises:
            ValueError: A value can't be.
        """
        default = cls()
        return cls(
            thresh=float(settings.get("thresh", default.thresh)),
            box_thresh=float(settings.get("box_thresh", default.box_thresh)),
            unclip_ratio=float(settings.get("unclip_ratio", default.unclip_ratio)),
            max_candidates=int(settings.get("max_candidates", default.max_candidates)),
            use_dilation=bool(settings.get("use_dilation", default.use_dilation)),
            score_mode=ScoreMode(settings.get("score_mode", default.score_mode)),
            box_type=BoxType(settings.get("box_type", default.box_type)),
        )

    def settings(self) -> dict[str, Any]:
        """The values under PaddleOCR's names, as `from_settings` takes them."""
        return {
            "thresh": self.thresh,
            "box_thresh": self.box_thresh,
            "max_candidates": self.max_candidates,
            "unclip_ratio": self.unclip_ratio,
            "use_dilation": self.use_dilation,
            "score_mode": self.score_mode.value,
            "box_type": self.box_type.value,
        }

    def __call__(self, probability: NDArray[np.float32], *, height: int, width: int) -> list[Region]:
        """Finds the regions of one page.

        Args:
            probability: float32 (H, W), the model's map of the resized page.
            height: Rows of the page itself.
            width: Columns of the page itself.

        Returns:
            Regions in pixels of the page, in the order of OpenCV's contours: from the bottom upwards.
        """
        mask = (probability > self.thresh).view(np.uint8)
        if self.use_dilation:
            mask = cv2.dilate(mask, _DILATION)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        find = self._rectangle if self.box_type is BoxType.QUAD else self._polygon
        regions = []
        for contour in contours[: self.max_candidates]:
            found = find(probability, contour)
            if found is not None:
                points, score = found
                regions.append(Region(points=_to_page(points, probability.shape, (height, width)), score=score))
        return regions

    def _rectangle(
        self, probability: NDArray[np.float32], contour: NDArray[np.int32]
    ) -> tuple[NDArray[np.floating], float] | None:
        corners, side = _least_rectangle(contour)
        if side < _MIN_CORE:
            return None
        outline = corners if self.score_mode is ScoreMode.FAST else contour.reshape(-1, 2)
        score = _mean_inside(probability, outline)
        if score < self.box_thresh:
            return None
        grown = self._grow(corners)
        if not grown:
            return None
        # Rarely a region falls into several; `paddleocr` then measures them together.
        corners, side = _least_rectangle(np.concatenate(grown))
        return None if side < _MIN_REGION else (corners, score)

    def _polygon(
        self, probability: NDArray[np.float32], contour: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], float] | None:
        outline = cv2.approxPolyDP(contour, _APPROXIMATION * cv2.arcLength(contour, True), True).reshape(-1, 2)
        if len(outline) < 4:
            return None
        score = _mean_inside(probability, outline)
        if score < self.box_thresh:
            return None
        grown = self._grow(outline)
        if len(grown) != 1 or min(cv2.minAreaRect(grown[0])[1]) < _MIN_REGION:
            return None
        return grown[0], score

    def _grow(self, outline: NDArray[np.generic]) -> list[NDArray[np.int32]]:
        # OpenCV measures in float32 what PaddleOCR's evaluation measures with Shapely; for serving it is OpenCV too.
        distance = cv2.contourArea(outline) * self.unclip_ratio / cv2.arcLength(outline, True)
        offset = pyclipper.PyclipperOffset()
        offset.AddPath(outline.tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
        return [np.asarray(path, np.int32) for path in offset.Execute(distance)]


def _least_rectangle(points: NDArray[np.generic]) -> tuple[NDArray[np.float32], float]:
    """The smallest rectangle around points.

    Args:
        points: int32 or float32 (K, 2) or (K, 1, 2).

    Returns:
        Its corners float32 (4, 2), from the top left clockwise as PaddleOCR orders them, and its shorter side.
    """
    rectangle = cv2.minAreaRect(points)
    left_1, left_2, right_1, right_2 = sorted(cv2.boxPoints(rectangle).tolist(), key=lambda corner: corner[0])
    top_left, bottom_left = (left_1, left_2) if left_2[1] > left_1[1] else (left_2, left_1)
    top_right, bottom_right = (right_1, right_2) if right_2[1] > right_1[1] else (right_2, right_1)
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32), min(rectangle[1])


def _mean_inside(probability: NDArray[np.float32], outline: NDArray[np.generic]) -> float:
    rows, columns = probability.shape
    corners = outline.tolist()
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    left, right = _within(math.floor(min(xs)), columns - 1), _within(math.ceil(max(xs)), columns - 1)
    top, bottom = _within(math.floor(min(ys)), rows - 1), _within(math.ceil(max(ys)), rows - 1)
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [np.array([(int(x - left), int(y - top)) for x, y in corners], np.int32)], 1)
    return float(cv2.mean(probability[top : bottom + 1, left : right + 1], mask)[0])


def _within(value: int, limit: int) -> int:
    return max(0, min(value, limit))


def _to_page(points: NDArray[np.generic], from_size: tuple[int, ...], to_size: tuple[int, int]) -> NDArray[np.int32]:
    # Four corners are faster through Python's numbers than through NumPy's; both round halves to even.
    (rows, columns), (height, width) = from_size, to_size
    scaled = [
        (_within(round(x / columns * width), width), _within(round(y / rows * height), height))
        for x, y in points.tolist()
    ]
    return np.array(scaled, np.int32)
