"""A text that is cut out of a page looks as the warp that serving uses shows it, however it was cut."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ocr_finetune_trainer.data.crops import cut

PAGE = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)


def warped(points: list[list[float]], *, width: int, height: int) -> np.ndarray:
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(np.array(points, np.float32), target)
    return cv2.warpPerspective(PAGE, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC)


def rectangle(left: float, top: float, width: float, height: float) -> list[list[float]]:
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


@pytest.mark.parametrize(
    "points",
    [
        rectangle(0, 0, 200, 120),
        rectangle(17, 30, 90, 24),
        rectangle(17.5, 30, 90, 24),
        rectangle(150, 100, 90, 24),  # beyond the page
        rectangle(-3, -2, 90, 24),
        [[107, 54], [17, 54], [17, 30], [107, 30]],  # upside down
        [[20, 40], [180, 38], [180, 90], [20, 92]],
        [[10, 10], [100, 12], [99, 50], [11, 48]],
    ],
)
def test_a_text_looks_as_the_warp_shows_it(points: list[list[float]]) -> None:
    crop = cut(PAGE, points)
    assert np.array_equal(crop, warped(points, width=crop.shape[1], height=crop.shape[0]))


@pytest.mark.parametrize("points", [rectangle(40, 10, 20, 60), [[40, 10], [61, 11], [60, 70], [39, 69]]])
def test_a_text_that_stands_upright_is_turned_to_the_left(points: list[list[float]]) -> None:
    crop = cut(PAGE, points)
    height, width = crop.shape[:2]
    assert width > height
    assert np.array_equal(crop, np.rot90(warped(points, width=height, height=width)))


@pytest.mark.parametrize("points", [rectangle(5, 5, 0, 10), rectangle(5, 5, 10, 0.2)])
def test_a_text_without_area_is_none(points: list[list[float]]) -> None:
    assert cut(PAGE, points) is None
