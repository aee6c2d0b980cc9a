"""Draws what was found on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["FALSE", "FOUND", "IGNORED", "MISSED", "draw_outlines"]

FOUND, MISSED, FALSE, IGNORED = (60, 160, 40), (40, 40, 220), (230, 120, 20), (150, 150, 150)


def draw_outlines(
    image: NDArray[np.uint8], outlines: Iterable[Any], *, color: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """A copy of a picture with outlines.

    Args:
        image: uint8 (H, W, 3), BGR.
        outlines: Each (K, 2), x and y in pixels.
        color: Blue, green, red.
    """
    drawn = image.copy()
    width = max(1, round(max(image.shape[:2]) / 500))
    for points in outlines:
        corners = np.asarray(points, dtype=np.float32).reshape(-1, 1, 2).round().astype(np.int32)
        cv2.polylines(drawn, [corners], isClosed=True, color=color, thickness=width, lineType=cv2.LINE_AA)
    return drawn
