"""A table model learns drawn tables from a manifest, and `paddleocr` reads with its export what we read."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from local_run import ROOT, Run, serving_environment

from ocr_finetune_trainer.data.store import DataSet

pytestmark = pytest.mark.timeout(1800)  # four minutes of a core; a loaded machine may take much longer
EXAMPLE = ROOT / "examples" / "tables"

READ_WITH_PADDLEOCR = """
import json, sys
from paddleocr import TableStructureRecognition
model = TableStructureRecognition(model_name="SLANet", model_dir=sys.argv[1])
for path in sys.argv[2:]:
    result = model.predict(path, batch_size=1)[0]
    print(json.dumps({"picture": path, "html": "".join(result["structure"]), "cells": result["bbox"]}, default=float))
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, ocrft):
    """The example, done: the run and what `ocrft run --json` printed."""
    folder = tmp_path_factory.mktemp("tables")
    runpy.run_path(str(EXAMPLE / "make_dataset.py"))["write"](folder / "data")
    document = yaml.safe_load((EXAMPLE / "finetune.yaml").read_text(encoding="utf-8"))
    document["spec"]["dataset"]["train"][0]["uri"] = str(folder / "data")
    (folder / "finetune.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    run = Run(folder / "finetune.yaml", folder / "workspace")
    done = ocrft("run", run.manifest, "--workspace", run.root, "--json", timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr
    return run, json.loads(done.stdout)


@pytest.mark.slow
def test_unseen_tables_are_read(drawn):
    run, printed = drawn
    assert [stage["stage"] for stage in printed["stages"]] == ["prepare", "train", "evaluate", "export"]
    metrics = run.result("evaluate").metrics
    assert metrics["best"]["structureAccuracy"] >= 0.9
    assert metrics["best"]["teds"] >= 0.98
    assert metrics["base"]["structureAccuracy"] < 0.1
    seen = {name: {s.image for s in DataSet.open(run.workspace.data / name)} for name in ("train", "test")}
    assert len(seen["test"]) > 100
    assert not seen["train"] & seen["test"]


@pytest.mark.slow
def test_paddleocr_reads_the_same_tables_and_predict_gives_their_html(drawn, ocrft, tmp_path):
    run, _ = drawn
    test_set = DataSet.open(run.workspace.data / "test")
    pictures = {}
    for index in range(25):
        path = tmp_path / f"{index}.png"
        path.write_bytes(test_set[index].image)
        pictures[str(path)] = test_set[index].text
    served = subprocess.run(
        [sys.executable, "-c", READ_WITH_PADDLEOCR, run.workspace.export / "paddle", *pictures],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env=serving_environment(),
    )
    theirs = [json.loads(line) for line in served.stdout.splitlines() if line.startswith("{")]
    predicted = ocrft("predict", "--json", run.workspace.folder, *pictures, "--draw", tmp_path / "drawn")
    assert predicted.returncode == 0, predicted.stderr
    ours = [json.loads(line) for line in predicted.stdout.splitlines()]
    assert [item["picture"] for item in ours] == [item["picture"] for item in theirs] == list(pictures)
    right = 0
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["html"] == re.sub("</?(?:html|body)>", "", other["html"])
        # `paddleocr` gives whole pixels
        np.testing.assert_allclose(np.array(mine["cells"]), np.array(other["cells"]), atol=1.0)
        right += mine["html"] == f"<table>{pictures[mine['picture']]}</table>"
    assert right >= 20
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 25


@pytest.mark.slow
def test_the_reports_know_tables(drawn):
    run, _ = drawn
    data = (run.workspace.data / "report.html").read_text(encoding="utf-8")
    assert "columns" in data
    facts = json.loads((run.workspace.data / "report.json").read_text(encoding="utf-8"))["tables"]
    assert (facts["columns"]["least"], facts["columns"]["most"]) == (2, 4)
    evaluation = (run.workspace.evaluation / "report.html").read_text(encoding="utf-8")
    assert "structure exactly right" in evaluation
    wrong = [
        line
        for line in (run.workspace.evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        if not json.loads(line)["right"]
    ]
    assert len(list(Path(run.workspace.evaluation / "badcases").glob("*.png"))) == min(len(wrong), 30)
    assert evaluation.count('class="columns"') == min(len(wrong), 30)
