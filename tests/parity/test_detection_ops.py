"""Targets, post-processing and metric of detection equal PaddleOCR's figures and what `paddleocr` serves with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ocr_finetune_trainer.data.db_targets import db_targets
from ocr_finetune_trainer.evaluation.db_postprocess import BoxType, DBPostProcess, ScoreMode
from ocr_finetune_trainer.metrics.detection import DetectionCounts, match_page

FIGURES = Path(__file__).parent / "figures"
FACTS: dict[str, Any] = json.loads((FIGURES / "detection_ops.json").read_text())


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(FIGURES / "detection_ops.npz") as archive:
        return dict(archive)


@pytest.mark.parametrize("index", range(len(FACTS["maps"])))
def test_targets_equal_the_figures(index: int, arrays: dict[str, np.ndarray]) -> None:
    """Equal but for single pixels: OpenCV 4.10 rasterises six pixels of a polygon's edge unlike 4.11, which the figures
    were made with, and PaddleOCR's formula leaves the threshold out where a pixel lies exactly on an edge (NaN)."""
    case = FACTS["maps"][index]
    maps = db_targets([np.asarray(p) for p in case["polys"]], case["ignore"], height=160, width=160)
    for name, drawn in maps.items():
        expected = arrays[f"map_{index}_{name}"].astype(np.float32)
        different = np.abs(drawn.astype(np.float32) - expected) > 1e-3
        assert different.sum() <= 6, name
        if name == "threshold_map":
            assert different.sum() <= 1
            assert (drawn[different] > expected[different]).all()


@pytest.mark.parametrize("case", FACTS["db_post"], ids=lambda case: f"map{case['map']}-{list(case['args'].values())}")
def test_postprocessing_equals_the_figures(case: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    settings = dict(case["args"])
    settings["score_mode"] = ScoreMode(settings.get("score_mode", "fast"))
    settings["box_type"] = BoxType(settings.get("box_type", "quad"))
    height, width = case["src"]
    regions = DBPostProcess(**settings)(arrays[f"db_map_{case['map']}"], height=height, width=width)
    assert [region.points.tolist() for region in regions] == case["boxes"]


def _drawn_map(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = np.zeros((256, 384), np.float32)
    for _ in range(12):
        center, size = rng.uniform(0, 380, 2), (rng.uniform(2, 140), rng.uniform(2, 30))
        corners = cv2.boxPoints((center.tolist(), size, float(rng.uniform(-90, 90))))
        cv2.fillPoly(drawn, [corners.astype(int)], float(rng.uniform(0.4, 1.0)))
    return np.asarray(cv2.GaussianBlur(drawn, (5, 5), 1.0))


@pytest.mark.parametrize("box_type", list(BoxType))
@pytest.mark.parametrize("score_mode", list(ScoreMode))
@pytest.mark.parametrize("use_dilation", [False, True])
def test_postprocessing_equals_what_paddleocr_serves(
    box_type: BoxType, score_mode: ScoreMode, use_dilation: bool
) -> None:
    from paddlex.inference.models.text_detection.processors import DBPostProcess as Served

    found = 0
    for seed in range(12):
        drawn = _drawn_map(seed)
        ours = DBPostProcess(box_type=box_type, score_mode=score_mode, use_dilation=use_dilation)
        regions = ours(drawn, height=500, width=333)
        served = Served(
            thresh=0.3,
            box_thresh=0.6,
            unclip_ratio=1.5,
            box_type=box_type.value,
            score_mode=score_mode.value,
            use_dilation=use_dilation,
        )
        boxes, scores = served([drawn[None, None]], [(500, 333, 1.0, 1.0)])
        assert [region.points.tolist() for region in regions] == [box.tolist() for box in boxes[0]]
        assert [region.score for region in regions] == pytest.approx(scores[0])
        found += len(regions)
    assert found > 20


def test_the_metric_equals_the_figures() -> None:
    total = DetectionCounts()
    for case in FACTS["det_metric"]:
        truths = [truth["points"] for truth in case["gts"]]
        ignored = [truth["ignore"] for truth in case["gts"]]
        counts = match_page(truths, ignored, [p["points"] for p in case["preds"]]).counts
        assert [counts.truths, counts.found, counts.matched] == list(case["per_image"].values())
        total += counts
    scores, expected = total.scores(), FACTS["det_metric_total"]
    assert [scores.precision, scores.recall, scores.hmean] == pytest.approx(list(expected.values()))
