"""The main job from a manifest to a model that `paddleocr` reads with."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from local_run import serving_environment

from ocr_finetune_trainer.data.store import DataSet

STAGES = ["prepare", "train", "evaluate", "export"]

READ_WITH_PADDLEOCR = """
import json, sys
from paddleocr import TextRecognition
model = TextRecognition(model_name=sys.argv[1], model_dir=sys.argv[2])
print(json.dumps({p: r["rec_text"] for p, r in zip(sys.argv[3:], model.predict(sys.argv[3:], batch_size=8))}))
"""


def test_the_demo_reads_pictures_it_never_saw(finished):
    run, printed = finished
    assert [stage["stage"] for stage in printed["stages"]] == STAGES
    metrics = run.result("evaluate").metrics
    assert metrics["best"]["accuracy"] >= 0.97
    assert metrics["base"]["accuracy"] < 0.5


def test_test_pictures_are_in_no_other_split(finished, digits):
    run, _ = finished
    seen = {
        name: {s.image for s in DataSet.open(run.workspace.data / name)} for name in ("train", "validation", "test")
    }
    sizes = {name: len(images) for name, images in seen.items()}
    assert 300 <= sizes["test"] <= 420
    assert not seen["test"] & (seen["train"] | seen["validation"])
    assert not seen["train"] & seen["validation"]
    with (digits / "samples.csv").open() as file:
        assert sum(1 for _ in csv.DictReader(file)) == 1797


def test_paddleocr_reads_what_our_evaluation_read(finished, tmp_path):
    run, _ = finished
    test_set = DataSet.open(run.workspace.data / "test")
    pictures = {}
    for index in range(60):
        path = tmp_path / f"{index}.png"
        path.write_bytes(test_set[index].image)
        pictures[str(path)] = test_set[index].text
    done = subprocess.run(
        [sys.executable, "-c", READ_WITH_PADDLEOCR, "PP-OCRv3_mobile_rec", run.workspace.export / "paddle", *pictures],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env=serving_environment(),
    )
    read = json.loads(done.stdout.splitlines()[-1])
    done = subprocess.run(
        [sys.executable, "-m", "ocr_finetune_trainer.cli", "predict", "--json", run.workspace.folder, *pictures],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    ours = [json.loads(line) for line in done.stdout.splitlines()]
    assert {item["picture"]: item["texts"][0]["text"] for item in ours} == read
    right = sum(read[path] == text for path, text in pictures.items())
    assert right >= 57


def test_the_onnx_model_is_described_in_itself(finished):
    run, _ = finished
    path = next((run.workspace.export / "onnx").glob("*.onnx"))
    session = onnxruntime.InferenceSession(path)
    assert [i.name for i in session.get_inputs()] == ["x"]
    assert [o.name for o in session.get_outputs()] == ["probabilities"]
    characters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    assert set("0123456789") <= set(characters)
    _, channels, height, _ = session.get_inputs()[0].shape
    probabilities = session.run(None, {"x": np.zeros((2, channels, height, 200), np.float32)})[0]
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-3)


def test_a_second_run_says_that_all_is_done(finished, ocrft):
    run, _ = finished
    before = {stage: run.workspace.result(stage).stat().st_mtime_ns for stage in map(_stage, STAGES)}
    done = ocrft("run", run.manifest, "--workspace", run.root)
    assert done.returncode == 0, done.stderr
    assert {stage: run.workspace.result(stage).stat().st_mtime_ns for stage in map(_stage, STAGES)} == before
    for line in (
        "from paddleocr import TextRecognition",
        "paddlex --pipeline pipeline.yml",
        "onnxruntime.InferenceSession(",
    ):
        assert line in done.stdout


def test_only_touched_stages_run_again(finished, ocrft, make_run):
    run, _ = finished
    trained = run.result("train")
    run.change({"evaluation.gate.min": 0.9701})
    done = ocrft("run", run.manifest, "--workspace", run.root)
    assert done.returncode == 0, done.stderr
    assert run.result("train") == trained
    assert run.result("evaluate").input_hash != trained.input_hash
    run.change({"evaluation.gate.min": 0.97})
    assert ocrft("run", run.manifest, "--workspace", run.root).returncode == 0


def test_a_gate_that_is_not_met_fails_the_run_and_keeps_the_report(finished, ocrft):
    run, _ = finished
    run.change({"evaluation.gate.min": 1.5})
    done = ocrft("evaluate", run.manifest, "--workspace", run.root)
    assert done.returncode == 80, done.stderr
    assert "accuracy" in done.stderr
    assert (run.workspace.evaluation / "report.html").exists()
    assert ocrft("export", run.manifest, "--workspace", run.root).returncode == 66
    run.change({"evaluation.gate.min": 0.97})
    assert ocrft("run", run.manifest, "--workspace", run.root).returncode == 0


def test_reports_are_pages_of_their_own(finished):
    run, _ = finished
    for path in (run.workspace.data / "report.html", run.workspace.evaluation / "report.html"):
        text = path.read_text(encoding="utf-8")
        assert "<img" in text or "data:image" in text
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text


def test_nothing_is_left_half_written(finished):
    run, _ = finished
    hidden = [path for path in Path(run.root).rglob(".*") if path.name != ".cache"]
    assert hidden == []


def _stage(name: str):
    from ocr_finetune_api.plan import Stage

    return Stage(name)
