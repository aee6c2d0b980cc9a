"""Labels, boxes, pictures, decoding and structure accuracy of tables equal PaddleOCR's figures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from figures import FOLDER

from ocr_finetune_trainer.data.table_labels import (
    BoxFormat,
    Cell,
    TableLabel,
    Vocabulary,
    encode,
    encode_boxes,
    normalise_tokens,
    vocabulary_for,
)
from ocr_finetune_trainer.evaluation.table_decode import decode, decode_target
from ocr_finetune_trainer.metrics.detection import DetectionCounts
from ocr_finetune_trainer.metrics.table import box_counts, same_structure
from ocr_finetune_trainer.table_geometry import TableGeometry

FACTS = json.loads((FOLDER / "table_ops.json").read_text())
with np.load(FOLDER / "table_ops.npz") as _arrays:
    ARRAYS = dict(_arrays)
MODELS = {"en": "SLANet", "ch": "SLANet_plus"}


def table(number: int) -> TableLabel:
    facts = FACTS["tables"][number]
    cells = tuple(Cell(tuple(c["tokens"]), tuple(c["bbox"]) if "bbox" in c else None) for c in facts["cells"])
    return TableLabel(normalise_tokens(facts["structure"]), cells)


@pytest.mark.parametrize("language", ["en", "ch"])
@pytest.mark.parametrize("merged", [True, False])
def test_vocabulary(language: str, merged: bool) -> None:
    vocabulary = Vocabulary(vocabulary_for(MODELS[language]).lines, merged=merged)
    assert list(vocabulary.lines) == FACTS["vocabulary"][language]["lines"]
    assert list(vocabulary.classes) == FACTS["vocabulary"][language]["classes"][json.dumps(merged)]
    assert list(vocabulary.lines) == FACTS["inference_config"][MODELS[language]]["PostProcess"]["character_dict"]


@pytest.mark.parametrize("number", range(len(FACTS["labels"])))
def test_labels(number: int) -> None:
    case = FACTS["labels"][number]
    settings: dict[str, Any] = case["settings"]
    vocabulary = Vocabulary(
        vocabulary_for(MODELS[settings["vocabulary"]]).lines, merged=settings["merge_no_span_structure"]
    )

    def encoded() -> Any:
        return encode(
            table(case["table"]),
            vocabulary,
            max_text_length=settings["max_text_length"],
            box_numbers=settings["loc_reg_num"],
            learn_empty_boxes=settings["learn_empty_box"],
        )

    if case["result"] == "dropped":
        assert encoded() is None
        return
    if case["result"] == "ValueError":
        with pytest.raises(ValueError, match="numbers instead of"):
            encoded()
        return
    result = encoded()
    assert result.structure.tolist() == case["structure"]
    assert result.length == case["length"]
    key = f"label_{case['table']}_{number % 6}"
    np.testing.assert_array_equal(result.boxes, ARRAYS[f"{key}_bboxes"])
    np.testing.assert_array_equal(result.box_masks, ARRAYS[f"{key}_bbox_masks"])
    height, width = FACTS["tables"][case["table"]]["size"]
    for form in BoxFormat:
        if f"{key}_{form}" in ARRAYS:
            boxes = encode_boxes(result.boxes, width=width, height=height, out=form)
            np.testing.assert_allclose(boxes, ARRAYS[f"{key}_{form}"], rtol=1e-6)
    # PaddleOCR trains on the table without the token it doesn't know; we say which it is.
    assert (' colspan="12"' in result.unknown) == (case["table"] == 3 and settings["vocabulary"] == "en")


@pytest.mark.parametrize("number", range(len(FACTS["pictures"])))
def test_pictures(number: int) -> None:
    facts = FACTS["pictures"][number]
    geometry = TableGeometry(side=facts["max_len"])
    picture = ARRAYS[f"picture_{number}_in"]
    resized = geometry.resize(picture)
    np.testing.assert_array_equal(resized, ARRAYS[f"picture_{number}_resized"])
    np.testing.assert_allclose(geometry.batch([picture])[0], ARRAYS[f"picture_{number}_out"], rtol=1e-5, atol=1e-6)
    boxes = ARRAYS[f"picture_{number}_bboxes"]
    parts = geometry.encode_boxes(boxes, height=picture.shape[0], width=picture.shape[1])
    ratio = facts["shape"][2]
    scaled = parts * np.asarray([picture.shape[1], picture.shape[0]] * 2) * ratio
    np.testing.assert_allclose(scaled, ARRAYS[f"picture_{number}_bboxes_resized"], rtol=1e-5)


def batch(number: int) -> tuple[dict[str, Any], list[Any], list[Any]]:
    facts = FACTS["decode"][number]
    vocabulary = vocabulary_for(MODELS[facts["vocabulary"]])
    arrays = {k.removeprefix(f"decode_{number}_"): v for k, v in ARRAYS.items() if k.startswith(f"decode_{number}_")}
    # PaddleOCR encodes boxes as parts of the picture and decodes them as parts of the padded square.
    frames = [(pad_w / ratio_w, pad_h / ratio_h) for _, _, ratio_h, ratio_w, pad_h, pad_w in arrays["shape"]]
    read = [
        decode(probabilities, boxes, vocabulary, frame=frame)
        for probabilities, boxes, frame in zip(arrays["structure_probs"], arrays["loc_preds"], frames, strict=True)
    ]
    true = [
        decode_target(structure, boxes, vocabulary, frame=frame)
        for structure, boxes, frame in zip(arrays["structure"], arrays["bboxes"], frames, strict=True)
    ]
    return facts, read, true


@pytest.mark.parametrize("number", [0, 1])
def test_decoding(number: int) -> None:
    facts, read, true = batch(number)
    assert [list(t.structure) for t in read] == facts["structures"]
    assert [list(t.structure) for t in true] == facts["target_structures"]
    scores = [np.nan if score is None else score for score in facts["scores"]]
    np.testing.assert_allclose([t.score for t in read], scores, rtol=1e-5)
    for tables, expected in ((read, facts["boxes"]), (true, facts["target_boxes"])):
        for t, boxes in zip(tables, expected, strict=True):
            assert len(t.boxes) == len(boxes)
            if boxes:
                np.testing.assert_allclose(t.boxes, boxes, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("number", [0, 1])
def test_metric(number: int) -> None:
    facts, read, true = batch(number)
    for case in facts["metrics"]:
        right = [
            same_structure(a.structure, b.structure, without_sections=case["del_thead_tbody"])
            for a, b in zip(read, true, strict=True)
        ]
        assert np.mean(right) == pytest.approx(case["metric"]["acc"], rel=1e-6)
        if case["compute_bbox_metric"]:
            counts = sum((box_counts(a.boxes, b.boxes) for a, b in zip(read, true, strict=True)), DetectionCounts())
            for name in ("precision", "recall", "hmean"):
                assert getattr(counts.scores(), name) == pytest.approx(case["metric"][f"bbox_metric_{name}"])


@pytest.mark.parametrize("without", [True, False])
def test_structure_accuracy(without: bool) -> None:
    right = [same_structure(pair["pred"], pair["true"], without_sections=without) for pair in FACTS["metric"]]
    expected = FACTS[f"metric_acc_del_thead_tbody_{json.dumps(without)}"]
    assert np.mean(right) == pytest.approx(expected, rel=1e-6)
