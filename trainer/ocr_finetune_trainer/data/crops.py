"""Cuts texts out of pages, straightened: how lines for recognition are made from pages with boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TURN_RATIO", "cut", "quadrilateral"]

# Text that stands upright: PaddleOCR turns such crops in serving, so training must see them turned too.
TURN_RATIO = 1.5


def quadrilateral(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The four corners of an outline: itself, or the smallest rotated rectangle around more or fewer points.

    Args:
        points: float32 (N, 2), N >= 3.

    Returns:
        float32 (4, 2): top left, top right, bottom right, bottom left.
    """
    if len(points) == 4:
        return points
    corners = np.asarray(cv2.boxPoints(cv2.minAreaRect(points)), dtype=np.float32)
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left = by_x[:2][np.argsort(by_x[:2, 1], kind="stable")]
    right = by_x[2:][np.argsort(by_x[2:, 1], kind="stable")]
    return np.stack([left[0], right[0], right[1], left[1]])


def cut(page: NDArray[np.uint8], points: Sequence[Sequence[float]] | NDArray[Any]) -> NDArray[np.uint8] | None:
    """One text of a page as a straight picture.

    Args:
        page: uint8 (H, W, 3).
        points: Its outline, (N, 2), x before y.

    Returns:
        uint8 (h, w, 3), turned to the left if it is `TURN_RATIO` times as high as wide; None if the outline has no
        area.
    """
    corners = quadrilateral(np.asarray(points, dtype=np.float32))
    width = round(max(_length(corners, 0, 1), _length(corners, 3, 2)))
    height = round(max(_length(corners, 0, 3), _length(corners, 1, 2)))
    if width < 1 or height < 1:
        return None
    crop = _upright(page, corners, width=width, height=height)
    if crop is None:
        target = np.asarray([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
        matrix = cv2.getPerspectiveTransform(corners, target)
        crop = cv2.warpPerspective(
            page, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC
        )
    if height >= TURN_RATIO * width:
        crop = np.rot90(crop)
    return np.ascontiguousarray(crop, dtype=np.uint8)


def _upright(page: NDArray[np.uint8], corners: NDArray[np.float32], *, width: int, height: int) -> NDArray[Any] | None:
    """The part of a page inside an upright rectangle of whole pixels, as most boxes are; None for all others.

    Straightening such a part moves nothing, and costs a hundred times more than taking it.
    """
    left, top = corners[0].tolist()
    rectangle = [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]
    if corners.tolist() != rectangle or not (left.is_integer() and top.is_integer()):
        return None
    if left < 0 or top < 0 or left + width > page.shape[1] or top + height > page.shape[0]:
        return None
    return page[int(top) : int(top) + height, int(left) : int(left) + width]


def _length(corners: NDArray[np.float32], start: int, end: int) -> float:
    return math.hypot(corners[start, 0] - corners[end, 0], corners[start, 1] - corners[end, 1])
