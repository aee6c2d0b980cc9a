"""What a detector learns: cores, borders, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from ocr_finetune_trainer.data.db_targets import TargetRule, db_targets

BOX = np.array([[20, 20], [80, 20], [80, 40], [20, 40]], np.float32)


def test_a_box_becomes_a_core_and_a_border() -> None:
    maps = db_targets([BOX], [False], height=64, width=100)
    # 60 × 20 pixels shrink by 1200 · (1 - 0.4²) / 160 = 6.3 on each side.
    assert maps["shrink_map"][30, 50] == 1
    assert maps["shrink_map"][30, 27:74].all()
    assert not maps["shrink_map"][30, :26].any()
    assert maps["shrink_mask"].all()
    assert maps["threshold_map"][20, 50] == pytest.approx(0.7)
    assert maps["threshold_map"][30, 50] == pytest.approx(0.3)
    assert 0.3 < maps["threshold_map"][17, 50] < maps["threshold_map"][19, 50] < 0.7
    assert maps["threshold_mask"][15, 50] == 1
    assert maps["threshold_mask"][12, 50] == 0
    assert {name: drawn.dtype for name, drawn in maps.items()} == {
        "threshold_map": np.float32,
        "threshold_mask": np.uint8,
        "shrink_map": np.uint8,
        "shrink_mask": np.uint8,
    }


def test_an_ignored_box_is_neither_learnt_nor_punished() -> None:
    maps = db_targets([BOX], [True], height=64, width=100)
    assert not maps["shrink_map"].any()
    assert not maps["threshold_mask"].any()
    assert not maps["shrink_mask"][25:35, 25:75].any()
    assert maps["shrink_mask"][:19].all()


@pytest.mark.parametrize(
    "tiny",
    [
        np.array([[20, 20], [80, 20], [80, 26], [20, 26]], np.float32),  # lower than 8 pixels
        np.array([[20, 20], [80, 40], [20, 20], [80, 40]], np.float32),  # flat
        np.array([[-50, 20], [-10, 20], [-10, 40], [-50, 40]], np.float32),  # outside
    ],
)
def test_what_is_too_small_to_learn_is_masked(tiny: np.ndarray) -> None:
    maps = db_targets([tiny], [False], height=64, width=100)
    assert not maps["shrink_map"].any()
    assert (maps["shrink_mask"] == 0).sum() > 0


def test_a_page_without_text_is_background() -> None:
    maps = db_targets([], [], height=32, width=32)
    assert maps["shrink_mask"].all()
    assert not maps["threshold_mask"].any()
    assert np.allclose(maps["threshold_map"], 0.3)


def test_a_polygon_of_many_points_works() -> None:
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    ring = np.stack([50 + 30 * np.cos(angle), 50 + 20 * np.sin(angle)], axis=1)
    maps = db_targets([ring], [False], height=100, width=100)
    assert maps["shrink_map"][50, 50] == 1
    assert maps["threshold_map"][50, 80] > 0.65


def test_a_box_among_very_many_boxes_looks_as_it_does_alone() -> None:
    corners = np.array([[2, 2], [14, 3], [13, 12], [3, 11]], np.float32)
    boxes = [np.add(corners, (20 * x, 20 * y)) for y in range(10) for x in range(10)]
    together = db_targets(boxes, [False] * 100, height=200, width=200)
    alone = db_targets([corners], [False], height=20, width=20)
    for name, drawn in together.items():
        tiles = drawn.reshape(10, 20, 10, 20).swapaxes(1, 2).reshape(100, 20, 20)
        assert np.allclose(tiles, alone[name], atol=1e-4), name


def test_a_higher_ratio_shrinks_less() -> None:
    cores = [
        db_targets([BOX], [False], height=64, width=100, rule=TargetRule(shrink_ratio=ratio))["shrink_map"].sum()
        for ratio in (0.4, 0.5, 0.6)
    ]
    assert cores == sorted(cores)
    assert cores[0] < cores[-1]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="shrink_ratio"):
        TargetRule(shrink_ratio=1.0)
    with pytest.raises(ValueError, match="low < high"):
        TargetRule(low=0.8)
    with pytest.raises(ValueError, match="shorter"):
        db_targets([BOX], [], height=64, width=100)
