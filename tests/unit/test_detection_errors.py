"""Kinds of mistakes, missing labels and advice, each counted by hand on drawn rectangles."""

from __future__ import annotations

import numpy as np

from ocr_finetune_trainer.evaluation.db_postprocess import Region
from ocr_finetune_trainer.evaluation.detection import DetectedPage, DetectionMeasurement
from ocr_finetune_trainer.evaluation.detection_breakdown import DetectionEvaluation
from ocr_finetune_trainer.evaluation.detection_errors import error_kinds, mistakes_of, suggestions
from ocr_finetune_trainer.evaluation.report.detection import detection_report


def box(x, y, width, height):
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32)


def page(truths, found, *, index=0, ignored=(), scores=()):
    return DetectedPage(
        index=index,
        truths=tuple(truths),
        ignored=tuple(i in ignored for i in range(len(truths))),
        found=tuple(
            Region(points=points.astype(np.int32), score=dict(enumerate(scores)).get(i, 0.95))
            for i, points in enumerate(found)
        ),
    )


def test_each_missed_text_has_its_kind():
    right, left, neighbour, broken, loose, gone = (box(0, y, 100, 20) for y in (0, 100, 130, 200, 300, 400))
    found = [
        right,
        box(0, 100, 100, 50),  # over two texts
        box(0, 200, 30, 20), box(40, 200, 30, 20),  # parts of one
        box(0, 300, 100, 60),  # three times as high
    ]  # fmt: skip

    mistakes = mistakes_of(page([right, left, neighbour, broken, loose, gone], found))

    assert mistakes.missed == {
        1: "run together with a neighbour",
        2: "run together with a neighbour",
        3: "found in pieces",
        4: "found, but too inexactly",
        5: "not found at all",
    }
    assert mistakes.extra == ()


def test_a_sure_find_beside_all_labels_may_lack_its_label():
    label, unreadable, new, doubtful = (
        box(0, 0, 100, 20),
        box(0, 40, 100, 20),
        box(0, 80, 100, 20),
        box(0, 120, 100, 20),
    )

    mistakes = mistakes_of(
        page([label, unreadable], [label, unreadable, new, doubtful], ignored={1}, scores=(0.9, 0.9, 0.95, 0.7))
    )

    assert mistakes.missed == {}
    assert mistakes.extra == (2, 3)
    assert mistakes.unlabelled == (2,)


def test_kinds_are_counted_over_pages():
    first, second = box(0, 0, 100, 20), box(0, 40, 100, 20)
    pages = [page([first, second], [], index=3), page([first], [second], index=7)]

    assert error_kinds(map(mistakes_of, pages)) == [
        {"kind": "not found at all", "texts": 3, "pages": [3, 7]},
        {"kind": "found where no text is", "texts": 1, "pages": [7]},
    ]


def test_advice_names_what_is_found_less_than_the_rest():
    lines = suggestions(
        overall={"recall": 0.9, "hmean": 0.9},
        by_size={"under 10": {"texts": 40, "recall": 0.5}, "10-16": {"texts": 5, "recall": 0.1}},
        by_source={"scans": {"hmean": 0.95, "pages": 9}, "photos": {"hmean": 0.6, "pages": 4}},
        mistakes=[mistakes_of(page([], [box(0, 0, 90, 20)]))],
    )

    assert [line.split(":")[0] for line in lines[:2]] == ["Texts under 10 pixels high", "Source photos"]
    assert "1 texts that the model is sure of have no label" in lines[-1]
    assert len(lines) == 3


def test_the_report_shows_what_got_worse_and_what_may_lack_a_label():
    first, second = box(0, 0, 60, 20), box(0, 40, 60, 20)
    evaluation = DetectionEvaluation(
        best=DetectionMeasurement(pages=(page([first], [], index=0), page([first], [first, second], index=1))),
        base=DetectionMeasurement(pages=(page([first], [first], index=0), page([first], [first], index=1))),
        other_rules={},
    )
    picture = np.full((80, 100, 3), 250, np.uint8)

    html = detection_report(
        evaluation, picture_of=lambda _: picture, title="t", facts={}, verdict={}, origin_of=lambda i: f"labels:{i}"
    )

    worse, rest = html.split("What got worse")[1].split("Labels that may be missing")
    missing, worst = rest.split("Worst pages")
    assert worse.count("<img") == missing.count("<img") == 1
    assert "labels:0" in worse
    assert "1 of the missed found before" in worse
    assert "labels:1" in missing
    assert worst.count("<img") == 2
    assert evaluation.document["likelyUnlabelled"] == {"1": [1]}
    assert evaluation.document["regressions"] == {"worse": 1, "pages": {"0": [0]}}
