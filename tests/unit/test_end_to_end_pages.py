"""Whole pages through the real `paddleocr.PaddleOCR` with two fitted models."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from trained_detector import MODEL, detection_spec, make_detection_run, pages, write_pages
from trained_run import context_for, make_run, spec_of
from typer.testing import CliRunner

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError
from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.cli import app
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.evaluation.end_to_end import find_run, measure_end_to_end, served_pair
from ocr_finetune_trainer.evaluation.subjects import trained_of
from ocr_finetune_trainer.models.store import obtain
from ocr_finetune_trainer.stages import evaluate
from ocr_finetune_trainer.training import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")

PAGES = pages(3, seed=4)


def make_talkative(workspace):
    """Makes a recogniser read something on every line, whatever its training came to: never nothing."""
    weights = checkpoint.load_best(workspace).weights()
    bias = weights["head.fc.bias"].copy()
    bias[0] -= 100.0
    shutil.rmtree(workspace.checkpoints)
    checkpoint.save(workspace.checkpoints, checkpoint.Manifest(step=1), {"model": weights | {"head.fc.bias": bias}})


def detection_context(root, **changes):
    return context_for(root, Stage.EVALUATE, spec=detection_spec(**changes), name="bars")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A workspace with two runs."""
    folder = tmp_path_factory.mktemp("workspace")
    make_talkative(make_run(folder))
    make_detection_run(folder)
    for context in (context_for(folder, Stage.EVALUATE, spec=spec_of()), detection_context(folder)):
        context.workspace.run_config.write_text(context.config.to_yaml())
    return folder


@pytest.fixture(scope="module")
def pipeline(root, tmp_path_factory):
    contexts = (context_for(root, Stage.EVALUATE), detection_context(root))
    return served_pair(
        *(trained_of(context.workspace, context.spec) for context in contexts), aside=tmp_path_factory.mktemp("pair")
    )


def measured(workspace, pipeline, samples):
    write_pages(workspace, "labelled", samples)
    return measure_end_to_end(
        pipeline, DataSet.open(workspace.data / "labelled"), iou=0.5, detector="d", recogniser="r"
    )


@pytest.fixture(scope="module")
def read(pipeline):
    """The pages, labelled with what `paddleocr` reads on them."""
    labelled = []
    for image, _, _ in PAGES:
        lines = pipeline.read(image)
        labelled.append((image, [np.asarray(line.points, np.float32) for line in lines], [line.text for line in lines]))
    return labelled


def test_pages_labelled_with_what_is_read_are_read_without_a_mistake(root, pipeline, read):
    workspace = detection_context(root).workspace
    lines = sum(len(texts) for _, _, texts in read)

    result = measured(workspace, pipeline, read)

    assert lines > 3
    assert (result.counts.hits, result.counts.found, result.counts.true) == (lines, lines, lines)
    assert result.as_dict()["fMeasure"] == 1.0


def test_a_wrong_text_and_a_missing_line_cost_what_they_should(root, pipeline, read):
    image, polygons, texts = read[0]
    moved = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], np.float32)
    changed = [(image, [*polygons, moved], [texts[0] + "8", *texts[1:], "missed"]), *read[1:]]

    result = measured(detection_context(root).workspace, pipeline, changed)

    lines = sum(len(texts) for _, _, texts in read)
    assert (result.counts.hits, result.counts.found, result.counts.true) == (lines - 1, lines, lines + 1)


def test_pages_without_texts_are_no_basis(root, pipeline, read):
    blank = [(image, polygons, [""] * len(polygons)) for image, polygons, _ in read]

    with pytest.raises(DataError, match="no texts to compare with"):
        measured(detection_context(root).workspace, pipeline, blank)


def test_the_stage_reads_pages_with_the_run_that_the_manifest_names(root, read):
    asked = {"endToEnd": {"with": {"run": "digits"}, "dataset": {"uri": "pages"}}}
    context = detection_context(root, evaluation=asked)
    write_pages(context.workspace, "end-to-end", read)

    outcome = evaluate.run(context)

    assert outcome.metrics["endToEnd"]["fMeasure"] == 1.0
    assert "whole pages" in (context.workspace.evaluation / "report.html").read_text()
    lines = (context.workspace.evaluation / "pages.jsonl").read_text().splitlines()
    assert [json.loads(line)["hits"] for line in lines] == [len(texts) for _, _, texts in read]


def test_pages_are_read_with_the_base_model_too_and_what_got_worse_is_told(root, read):
    asked = {"endToEnd": {"with": {"run": "digits"}, "dataset": {"uri": "pages"}}}
    spec = detection_spec(evaluation=asked, model={"name": MODEL, "pretrained": "run://bars"})
    context = context_for(root, Stage.EVALUATE, spec=spec, name="blind")
    first = detection_context(root).workspace
    context.workspace.data.mkdir(parents=True)
    for name in ("train", "test"):
        write_pages(context.workspace, name, pages(2, seed=3))
    # The second page is unlabelled, so that both models do equally badly there.
    write_pages(context.workspace, "end-to-end", [read[0], (read[1][0], [], []), read[2]])
    obtain(
        MODEL, "run://bars", workspace=context.workspace, best_of=lambda other: checkpoint.load_best(other).weights()
    )
    # The new model sees nothing any more.
    weights = checkpoint.load_best(first).weights()
    blinded = {key: value - 100 if key.endswith("binarize.conv3.bias") else value for key, value in weights.items()}
    assert any((blinded[key] != weights[key]).any() for key in weights)
    checkpoint.save(context.workspace.checkpoints, checkpoint.Manifest(step=1), {"model": blinded})

    measured = evaluate.run(context).metrics["endToEnd"]

    lines = [len(texts) for _, _, texts in read]
    assert (measured["hits"], measured["base"]["hits"]) == (0, lines[0] + lines[2])
    assert measured["improvement"]["value"] == -measured["base"]["fMeasure"] < -0.5
    assert {(row["index"], row["hits"], row["hitsBefore"]) for row in measured["regressions"]} == {
        (0, 0, lines[0]),
        (2, 0, lines[2]),
    }
    report = (context.workspace.evaluation / "report.html").read_text()
    section = report.split("<h2>Whole pages</h2>")[1].split("<h2>")[0]
    assert "2 pages have fewer lines right than with the base model" in section
    assert section.count("<img") == 2
    assert f"not read: {read[0][2][0]}" in section


def test_a_run_that_is_not_there_is_named_with_those_that_are(root):
    with pytest.raises(InputMissingError, match=r"no run 'plates'.*bars, digits"):
        find_run(root, "plates")


def test_two_runs_of_a_kind_do_not_read_pages(root, tmp_path):
    context = detection_context(root)
    subject = trained_of(context.workspace, context.spec)

    with pytest.raises(ConfigurationError, match="do not read pages together"):
        served_pair(subject, subject, aside=tmp_path)


def test_the_command_line_measures_two_runs(root):
    result = CliRunner().invoke(
        app, ["evaluate", "--json", "--det", str(root / "bars-12345678"), "--rec", str(root / "digits-12345678")]
    )

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["pages"], figures["true"], figures["set"]) == (12, 36, "test")
    assert isinstance(CliRunner().invoke(app, ["evaluate", "--det", str(root)]).exception, ConfigurationError)
    missing = CliRunner().invoke(app, ["evaluate", "--det", str(root), "--rec", str(root)])
    assert isinstance(missing.exception, InputMissingError)


def test_the_command_line_reads_any_labelled_pages(root, read, tmp_path):
    lines = []
    for number, (image, polygons, texts) in enumerate(read):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        boxes = [
            {"points": polygon.tolist(), "transcription": text} for polygon, text in zip(polygons, texts, strict=True)
        ]
        lines.append(f"{number}.png\t{json.dumps(boxes)}")
    lines += ["gone.png\t[]", f"0.png\t{json.dumps([{'points': [[1, 1]]}])}"]
    (tmp_path / "Label.txt").write_text("\n".join(lines), encoding="utf-8")
    pair = ["--det", str(root / "bars-12345678"), "--rec", str(root / "digits-12345678")]

    result = CliRunner().invoke(app, ["evaluate", "--json", *pair, "--test", str(tmp_path)])

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    count = sum(len(texts) for _, _, texts in read)
    assert (figures["pages"], figures["hits"], figures["true"], figures["unusable"]) == (3, count, count, 2)
    assert (figures["precision"], figures["recall"], figures["fMeasure"], figures["characterAccuracy"]) == (1, 1, 1, 1)
    assert "Label.txt:4" in result.stderr
    assert "Label.txt:5" in result.stderr
    nowhere = CliRunner().invoke(app, ["evaluate", *pair, "--test", str(tmp_path / "nowhere")])
    assert isinstance(nowhere.exception, InputMissingError)
    alone = CliRunner().invoke(app, ["evaluate", "--test", str(tmp_path)])
    assert isinstance(alone.exception, ConfigurationError)
