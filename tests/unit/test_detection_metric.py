"""The detection metric and the end-to-end metric, on pages small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
from ocr_finetune_trainer.metrics.detection import DetectionCounts, match_page
from ocr_finetune_trainer.metrics.end_to_end import EndToEndCounts, Line, compare_page, half_width


def _box(x: float, y: float, width: float = 10, height: float = 4) -> list[list[float]]:
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def test_half_an_overlap_is_not_enough() -> None:
    # A box of twice the area has an IoU of exactly 0.5.
    assert match_page([_box(0, 0)], [False], [_box(0, 0, 20)]).counts.matched == 0
    assert match_page([_box(0, 0)], [False], [_box(0, 0, 19.9)]).counts.matched == 1


def test_one_found_region_matches_one_true_region() -> None:
    page = match_page([_box(0, 0), _box(0.5, 0)], [False, False], [_box(0.2, 0), _box(100, 0)])
    assert page.pairs == ((0, 0),)
    assert page.counts == DetectionCounts(pages=1, truths=2, found=2, matched=1)
    assert page.counts.scores().hmean == pytest.approx(0.5)


def test_what_lies_in_an_unreadable_region_does_not_count() -> None:
    page = match_page([_box(0, 0, 40, 20), _box(0, 50)], [True, False], [_box(5, 5), _box(0, 50)])
    assert page.counts == DetectionCounts(pages=1, truths=1, found=1, matched=1, ignored_truths=1, ignored_found=1)
    assert page.pairs == ((1, 1),)


def test_a_region_in_an_unreadable_one_matches_nothing_else() -> None:
    page = match_page([_box(0, 0), _box(0, 0, 40, 20)], [False, True], [_box(0, 0)])
    assert page.counts == DetectionCounts(pages=1, truths=1, ignored_truths=1, ignored_found=1)


def test_polygons_without_an_inside_are_counted_apart() -> None:
    crossed = [[0, 0], [10, 10], [10, 0], [0, 10]]
    page = match_page([crossed, _box(50, 50)], [False, False], [_box(50, 50), [[0, 0], [1, 1]], crossed])
    assert page.counts == DetectionCounts(pages=1, truths=1, found=1, matched=1, invalid_truths=1, invalid_found=2)
    assert page.pairs == ((1, 0),)


def test_polygons_of_many_points_are_compared() -> None:
    octagon = [[3, 0], [7, 0], [10, 3], [10, 7], [7, 10], [3, 10], [0, 7], [0, 3]]
    assert match_page([octagon], [False], [_box(0, 0, 10, 10)]).counts.matched == 1


@pytest.mark.parametrize(("truths", "found"), [([], []), ([_box(0, 0)], []), ([], [_box(0, 0)])])
def test_empty_pages_score_nothing(truths: list, found: list) -> None:
    counts = match_page(truths, [False] * len(truths), found).counts
    assert (counts.truths, counts.found, counts.matched) == (len(truths), len(found), 0)
    assert counts.scores().hmean == 0.0


def test_marks_must_fit() -> None:
    with pytest.raises(ValueError, match="1 true regions but 0 marks"):
        match_page([_box(0, 0)], [], [])


def test_end_to_end_counts_as_the_documents_do() -> None:
    true = [
        Line(points=_box(0, 0), text="皖A1"),
        Line(points=_box(0, 20), text="right"),
        Line(points=_box(0, 40), text="lost"),
        Line(points=_box(0, 60), text="###", ignored=True),
    ]
    found = [
        Line(points=_box(0.5, 0), text="皖Ａ1"),  # full width counts as equal
        Line(points=_box(0, 20), text="light"),
        Line(points=_box(0, 60), text="whatever"),  # belongs to an ignored line: counts nowhere
        Line(points=_box(90, 90), text="ghost"),
    ]
    counts = compare_page(true, found)
    # One character of the second line, all of the lost and of the ghost.
    assert counts == EndToEndCounts(pages=1, hits=1, found=3, true=3, edits=1 + 4 + 5, characters=3 + 5 + 4)
    scores = counts.scores()
    assert scores.precision == scores.recall == scores.f_measure == pytest.approx(1 / 3)
    assert scores.character_accuracy == pytest.approx(1 - 10 / 12)


def test_the_best_overlap_wins_not_the_first() -> None:
    true = [Line(points=_box(0, 0), text="a")]
    found = [Line(points=_box(2, 0), text="b"), Line(points=_box(0, 0), text="a")]
    assert compare_page(true, found).hits == 1


def test_an_iou_of_exactly_the_limit_is_a_pair_end_to_end() -> None:
    page = compare_page([Line(points=_box(0, 0), text="a")], [Line(points=_box(0, 0, 20), text="a")])
    assert page.hits == 1


def test_the_documents_table_follows_from_its_counts() -> None:
    scores = EndToEndCounts(pages=5006, hits=4538, found=4931, true=5006).scores()
    assert round(100 * scores.precision, 2) == 92.03
    assert round(100 * scores.recall, 2) == 90.65
    assert round(100 * scores.f_measure, 2) == 91.34


def test_half_width_changes_only_what_has_a_twin() -> None:
    assert half_width("Ａ～\u3000京、") == "A~ 京、"


def test_wrong_settings_of_postprocessing_are_named() -> None:
    with pytest.raises(ValueError, match="box_thresh"):
        DBPostProcess(box_thresh=1.5)
    with pytest.raises(ValueError, match="unclip_ratio"):
        DBPostProcess(unclip_ratio=0.0)
    with pytest.raises(ValueError, match="max_candidates"):
        DBPostProcess(max_candidates=0)
    assert DBPostProcess()(np.zeros((32, 32), np.float32), height=32, width=32) == []


def test_only_so_many_candidates_are_looked_at() -> None:
    dotted = np.zeros((64, 256), np.float32)
    for x in range(0, 250, 50):
        dotted[20:40, x + 5 : x + 40] = 0.9
    assert len(DBPostProcess()(dotted, height=64, width=256)) == 5
    assert len(DBPostProcess(max_candidates=2)(dotted, height=64, width=256)) == 2
