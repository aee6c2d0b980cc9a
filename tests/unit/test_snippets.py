"""The lines that an export offers for its use run as they stand there, and give what our own evaluation gives."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from trained_detector import detection_spec, make_detection_run, pages
from trained_run import context_for, digits, make_run, spec_of

from ocr_finetune_api.model_table import lookup
from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.data.pictures import decode
from ocr_finetune_trainer.evaluation.alone import read_alone
from ocr_finetune_trainer.evaluation.opening import open_model
from ocr_finetune_trainer.evaluation.pipeline import Pipeline
from ocr_finetune_trainer.evaluation.subjects import build_subject
from ocr_finetune_trainer.export.exporter import Exporter
from ocr_finetune_trainer.export.snippets import as_markdown, snippets_for
from ocr_finetune_trainer.stages import export

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A detector, and a recogniser whose manifest names it as its other half; both exported, moved and unpacked."""
    root = tmp_path_factory.mktemp("workspace")
    make_detection_run(root)
    make_run(root)
    contexts = (
        context_for(root, Stage.EXPORT, spec=detection_spec(), name="bars"),
        context_for(
            root,
            Stage.EXPORT,
            spec=spec_of(evaluation={"endToEnd": {"with": {"run": "bars"}, "dataset": {"uri": "pages"}}}),
        ),
    )
    outcomes = []
    for context in contexts:
        context.workspace.run_config.write_text(context.config.to_yaml())
        outcomes.append((context.workspace.export, export.run(context)))
    return dict(zip(("detection", "recognition"), outcomes, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the pictures lie that the lines name."""
    folder = tmp_path_factory.mktemp("pictures")
    cv2.imwrite(str(folder / "picture.png"), digits(1, start=1003)[0][0])
    cv2.imwrite(str(folder / "page.png"), pages(1, seed=9)[0][0])
    return folder


def snippet(outcome, title):
    return next(item for item in outcome.details["snippets"] if title in item["title"])


def output_of(item, folder, *, logged=False):
    """What it prints, and what it logs beside it where that is wanted: libraries have words of their own there."""
    environment = os.environ | {"PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = {"python": [sys.executable, "-W", "ignore", "-c"], "shell": ["sh", "-c"]}[item["language"]]
    done = subprocess.run(
        [*command, item["code"]], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr if logged else done.stdout


def test_paddleocr_and_onnxruntime_read_a_line(exported, folder):
    made, outcome = exported["recognition"]
    picture = decode((folder / "picture.png").read_bytes())
    ((read,),) = Pipeline([open_model(made / "onnx")]).read([picture])

    logged = output_of(snippet(outcome, "paddleocr"), folder, logged=True).splitlines()
    (served,) = [ast.literal_eval(line) for line in logged if line.startswith("{'res'")]

    assert read.text
    assert served["res"]["rec_text"] == read.text
    assert output_of(snippet(outcome, "onnxruntime"), folder) == f"{read.text}\n"


def test_paddleocr_and_onnxruntime_find_the_texts_of_a_page(exported, folder):
    made, outcome = exported["detection"]
    page = decode((folder / "page.png").read_bytes())
    (found,) = Pipeline([open_model(made / "onnx")]).read([page])

    lines = output_of(snippet(outcome, "onnxruntime"), folder).splitlines()

    def corners(boxes):
        """Of each box as far as it lies on the page: a few lines by hand do not cut it off there."""
        inside = [np.asarray(box).clip(0, page.shape[1::-1]) for box in boxes]
        return sorted(box.min(axis=0).tolist() + box.max(axis=0).tolist() for box in inside)

    assert len(lines) == len(found) == 3
    expected = corners(read.points for read in found)
    assert np.abs(np.subtract(corners(json.loads(line) for line in lines), expected)).max() <= 3
    assert "dt_polys" in output_of(snippet(outcome, "paddleocr"), folder, logged=True)


def test_the_archive_of_one_run_reads_pages_with_both_models(exported, folder, tmp_path):
    made, outcome = exported["recognition"]
    item = snippet(outcome, "PaddleX")
    subprocess.run(["tar", "xzf", str(made.parent / "digits.tar.gz")], cwd=tmp_path, check=True)
    page = tmp_path / "digits" / "page.png"
    page.write_bytes((folder / "page.png").read_bytes())
    assert str(made) in item["code"]
    assert "that of bars" in item["title"]

    printed = output_of(
        item | {"code": item["code"].replace(str(made), str(tmp_path / "digits"))}, tmp_path, logged=True
    )

    assert "rec_texts" in printed
    assert (tmp_path / "digits" / "paddle-detection" / "inference.yml").is_file()


def test_the_card_holds_the_same_lines(exported):
    made, outcome = exported["detection"]
    card = (made / "model-card.md").read_text()

    assert snippet(outcome, "onnxruntime")["code"].replace(str(made), "").replace('"/onnx', '"onnx') in card


@pytest.mark.parametrize(("name", "shape"), [("SLANet_small", (90, 160)), ("PP-LCNet_x0_25_textline_ori", (40, 200))])
def test_onnxruntime_alone_reads_tables_and_tells_turned_lines(tmp_path, name, shape):
    info = lookup(name)
    exporter = Exporter(
        subject=build_subject(name, None, kind=info.kind, dictionary=None, note="untrained"),
        folder=tmp_path, checker=None, metrics={}, max_drop=0.0, tell=lambda _: None,
    )  # fmt: skip
    exporter.make_paddle()
    exporter.make_onnx()
    picture = np.random.default_rng(1).integers(0, 255, (*shape, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    (item,) = snippets_for(info, paddle="", onnx=str(exporter.onnx))

    printed = output_of(item.as_dict(), tmp_path)

    assert printed == read_alone(open_model(exporter.onnx), picture).text + "\n"
    assert item.code in as_markdown([item])
