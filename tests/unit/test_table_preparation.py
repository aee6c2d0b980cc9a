"""Preparation keeps what tables are: structure, cells, and cells without a place; and says what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ocr_finetune_api.exit_codes import DataError
from ocr_finetune_api.plan import Stage, plan
from ocr_finetune_api.run_config import RunConfig, RunIdentity
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.data.synthetic_tables import Drawing, draw_table, write_pubtabnet
from ocr_finetune_trainer.stages import prepare
from ocr_finetune_trainer.stages.context import StageContext
from ocr_finetune_trainer.telemetry.reporter import Reporter

WORDS = ("total", "price")
LOOK = Drawing(rows=(1, 3), columns=(2, 3), span=0.5, empty=0.5)


def prepared(folder: Path, model: str = "SLANet_plus") -> Workspace:
    dataset = {"train": [{"uri": str(folder / "data")}], "validation": {"fraction": 0.01}}
    spec = {"model": {"name": model, "pretrained": "none"}, "dataset": dataset}
    config = RunConfig(
        run=RunIdentity(name="run", uid="0" * 8), spec=OCRFineTuneSpec.model_validate(spec), metrics_port=0
    )
    workspace = Workspace(folder / "workspace", "run-00000000")
    context = StageContext(
        config=config,
        workspace=workspace,
        planned=plan(config.spec)[Stage.PREPARE],
        reporter=Reporter.for_stage(Stage.PREPARE, folder=folder / "telemetry"),
    )
    prepare.run(context)
    return workspace


def test_tables_come_back_as_they_were_drawn(tmp_path: Path) -> None:
    write_pubtabnet(tmp_path / "data", words=WORDS, tables=15, seed=3, look=LOOK)
    workspace = prepared(tmp_path)
    sets = [DataSet.open(path.parent) for path in workspace.data.glob("*/dataset.json")]
    samples = [data[index] for data in sets for index in range(len(data))]
    assert len(samples) == 15
    assert any(True in sample.ignored for sample in samples)
    for sample in samples:
        number = int(sample.origin.split("images/")[1][:6])
        _, label = draw_table(WORDS, rng=np.random.default_rng((3, number)), look=LOOK)
        assert sample.text == label.html
        assert sample.texts == tuple("".join(cell.tokens) for cell in label.cells)
        for polygon, ignored, cell in zip(sample.polygons, sample.ignored, label.cells, strict=True):
            assert ignored == (cell.box is None)
            if cell.box is not None:
                assert [*polygon[0], *polygon[2]] == pytest.approx(cell.box, abs=0.5)


def test_what_a_model_has_no_word_for_is_named_with_its_line(tmp_path: Path) -> None:
    labels = write_pubtabnet(tmp_path / "data", words=WORDS, tables=10, seed=3, look=LOOK)
    lines = labels.read_text().splitlines()
    odd = json.loads(lines[4])
    cells = ["<td", ' colspan="77"', ">", "</td>"]
    odd["html"] = {
        "structure": {"tokens": ["<tr>", *cells, "</tr>"]},
        "cells": [{"tokens": ["x"], "bbox": [1, 1, 9, 9]}],
    }
    lines[4] = json.dumps(odd)
    lines[7] = lines[7][:50]
    labels.write_text("\n".join(lines))
    with pytest.raises(DataError) as error:
        prepared(tmp_path)
    assert "gt.txt:8: is no JSON" in str(error.value)
    assert 'gt.txt:5 (images/000004.png): the structure uses colspan="77"' in str(error.value)


def test_pictures_of_something_else_end_it(tmp_path: Path) -> None:
    write_pubtabnet(tmp_path / "data", words=WORDS, tables=4, seed=3, look=LOOK)
    (tmp_path / "data" / "gt.txt").unlink()
    (tmp_path / "data" / "train.txt").write_text("".join(f"images/{number:06d}.png\ttotal\n" for number in range(4)))
    with pytest.raises(DataError, match="learns tables with cells"):
        prepared(tmp_path)
