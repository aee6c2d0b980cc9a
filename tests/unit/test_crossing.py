"""Outlines that go around an area, and those that cross themselves."""

from __future__ import annotations

import itertools

import pytest

from ocr_finetune_trainer.data.crossing import crosses_itself, goes_around

CORNERS = ((0.0, 0.0), (9.0, 1.0), (8.0, 6.0), (1.0, 5.0))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_four_corners_go_around_or_cross(order):
    outline = [CORNERS[number] for number in order]
    assert goes_around(outline) != crosses_itself(outline)


def test_a_dent_neither_goes_around_nor_crosses():
    outline = [(0.0, 0.0), (9.0, 0.0), (2.0, 2.0), (0.0, 9.0)]
    assert not goes_around(outline)
    assert not crosses_itself(outline)


@pytest.mark.parametrize(
    "outline", [CORNERS[:3], (*CORNERS, (0.0, 3.0)), [(0.0, 0.0), (4.0, 0.0), (8.0, 0.0), (2.0, 0.0)]]
)
def test_only_four_corners_around_an_area_do(outline):
    assert not goes_around(outline)
