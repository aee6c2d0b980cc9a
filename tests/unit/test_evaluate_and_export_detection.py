"""The two last stages on a real, quickly fitted detector."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from trained_detector import detection_spec, make_detection_run, pages, write_pages
from trained_run import context_for

from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.data import formats
from ocr_finetune_trainer.data.files import open_files
from ocr_finetune_trainer.data.records import Record
from ocr_finetune_trainer.evaluation.db_postprocess import Region
from ocr_finetune_trainer.evaluation.detection import DetectedPage, DetectionMeasurement
from ocr_finetune_trainer.evaluation.detection_breakdown import DetectionEvaluation, by_iou, by_size, text_height
from ocr_finetune_trainer.export.detection_checks import same_regions
from ocr_finetune_trainer.stages import evaluate, export

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")


def stage(root, name):
    return context_for(root, name, spec=detection_spec(), name="bars")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    make_detection_run(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(root):
    return evaluate.run(stage(root, Stage.EVALUATE))


def test_a_detector_is_measured_beside_its_base(root, evaluated):
    document = json.loads((stage(root, Stage.EVALUATE).workspace.evaluation / "metrics.json").read_text())

    assert evaluated.metrics["best"]["hmean"] > 0.8
    assert evaluated.metrics["base"]["hmean"] < 0.2
    assert document["improvement"]["hmean"]["low"] > 0.5
    assert list(document["byIou"]) == ["0.5", "0.6", "0.7", "0.8"]
    assert set(document["otherSizeRules"]) == {"min736", "max960"}
    assert sum(row["texts"] for row in document["bySize"].values()) == evaluated.metrics["best"]["truths"] == 36


def test_every_format_finds_what_the_trained_model_finds(root, evaluated):
    outcome = export.run(stage(root, Stage.EXPORT))

    assert {name: check["different"] for name, check in outcome.metrics["formats"].items()} == {
        "paddle": 0,
        "paddleocr": 0,
        "onnx": 0,
    }
    assert outcome.metrics["exported"]["hmean"] == pytest.approx(evaluated.metrics["best"]["hmean"])


def test_bad_pages_come_back_as_training_data_once_somebody_confirms_them(root, evaluated, tmp_path):
    workspace = stage(tmp_path / "copy", Stage.EVALUATE).workspace
    shutil.copytree(root, tmp_path / "copy")
    image, polygons, texts = pages(1, seed=2)[0]
    # The label of a text that the model finds is missing, and there is one for a text that isn't there.
    unread = np.array([[130, 2], [158, 2], [158, 12], [130, 12]], np.float32)
    write_pages(workspace, "test", [(image, [*polygons[1:], unread], [*texts[1:], "no"])])

    evaluate.run(stage(tmp_path / "copy", Stage.EVALUATE))

    folder = workspace.evaluation / "badcases"
    (reason,) = [json.loads(line) for line in (folder / "why.jsonl").read_text().splitlines()]
    assert reason["origin"] == "test.txt:1"
    assert reason["why"] == "texts missed, or found where none is"

    def read():
        request = formats.Request(files=open_files(folder)[0], kind=Kind.DETECTION)
        layout = formats.layout(formats.recognise(request).format)
        return [item for item in layout.read(request) if isinstance(item, Record)]

    assert read() == []
    (folder / "fileState.txt").write_text(f"{folder / reason['picture']}\t1\n")
    (record,) = read()
    assert [box.text for box in record.boxes] == [*texts[1:], "no"]
    assert np.array_equal([np.array(box.points) for box in record.boxes], [*polygons[1:], unread])


def box(x, y, width, height):
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32)


def page(index, truths, found):
    return DetectedPage(
        index=index,
        truths=tuple(truths),
        ignored=(False,) * len(truths),
        found=tuple(Region(points=points.astype(np.int32), score=0.9) for points in found),
        source="s",
    )


def measured(*pages):
    return DetectionMeasurement(pages=pages)


def test_a_higher_overlap_is_harder_to_reach():
    figures = by_iou(measured(page(0, [box(0, 0, 100, 20)], [box(0, 0, 70, 20)])))

    assert [figures[iou]["hmean"] for iou in ("0.5", "0.6", "0.7", "0.8")] == [1.0, 1.0, 0.0, 0.0]


def test_recall_is_told_by_the_height_of_the_text():
    truths = [box(0, 0, 50, 8), box(0, 20, 50, 12), box(0, 40, 50, 40)]

    assert by_size(measured(page(0, truths, [truths[2]]))) == {
        "under 10": {"texts": 1, "recall": 0.0},
        "10-16": {"texts": 1, "recall": 0.0},
        "32-64": {"texts": 1, "recall": 1.0},
    }
    assert text_height(truths[1]) == pytest.approx(12)


def test_texts_that_only_the_base_model_found_are_regressions():
    truths = [box(0, 0, 50, 20), box(0, 40, 50, 20)]
    evaluation = DetectionEvaluation(
        best=measured(page(3, truths, [truths[0]])), base=measured(page(3, truths, [truths[1]])), other_rules={}
    )

    assert evaluation.lost == {3: frozenset({1})}
    assert evaluation.regressed == 0.5


def test_ranks_add_up_to_the_whole():
    pages = [page(i, [box(0, 0, 50, 20)], [box(0, 0, 50, 20)] if i % 2 else []) for i in range(6)]
    parts = measured(*pages[::2]).sums + measured(*pages[1::2]).sums

    assert DetectionMeasurement.scores_of(parts) == DetectionMeasurement.scores_of(measured(*pages).sums)


def test_regions_are_the_same_but_for_rounding_and_order():
    first, second = box(0, 0, 50, 20), box(0, 40, 50, 20)

    assert same_regions([first, second], [second + 1, first])
    assert not same_regions([first], [first + 5])
    assert not same_regions([first, first], [first, second])
    assert not same_regions([first], [])
