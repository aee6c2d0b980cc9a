"""Which way lines are turned: learnt from lines of real digits, proven, exported, and said the same by `paddleocr`."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml
from local_run import ROOT, Run, serving_environment
from sklearn.datasets import load_digits

from ocr_finetune_trainer.data.orientation_samples import can_be_told, turn

EXAMPLE = ROOT / "examples" / "turned-lines"

SAY_WITH_PADDLEOCR = """
import json, sys
import numpy as np
from paddleocr import TextLineOrientationClassification
model = TextLineOrientationClassification(model_name=sys.argv[1], model_dir=sys.argv[2])
for path in sys.argv[3:]:
    result = model.predict(path, batch_size=1)[0]
    print(json.dumps({"label": result["label_names"][0], "score": float(np.ravel(result["scores"])[0])}))
"""


def line(rng) -> tuple[np.ndarray, str]:
    """Six handwritten digits in a row, dark on light, and what they say."""
    digits = load_digits()
    chosen = rng.integers(len(digits.images), size=6)
    ink = np.hstack([digits.images[i] for i in chosen]) * 255 / 16
    picture = cv2.resize(np.uint8(255 - ink.clip(0, 255)), (144, 24), interpolation=cv2.INTER_CUBIC)
    return np.repeat(picture[:, :, None], 3, axis=2), "".join(str(digits.target[i]) for i in chosen)


def write_lines(folder, *, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    labels = []
    for number in range(count):
        picture, text = line(rng)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
        labels.append(f"images/{number}.png\t{text}")
    (folder / "train.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")


def make_run(folder, *, lines: int, name: str, epochs: int) -> Run:
    """The example's manifest for lines of digits, from scratch on the CPU."""
    write_lines(folder / "data", count=lines, seed=1)
    document = yaml.safe_load((EXAMPLE / "finetune.yaml").read_text(encoding="utf-8"))
    (folder / "finetune.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    run = Run(folder / "finetune.yaml", folder / "workspace")
    document["spec"]["dataset"]["train"][0]["uri"] = str(folder / "data")
    run.manifest.write_text(yaml.safe_dump(document), encoding="utf-8")
    run.change(
        {
            "model": {"name": name, "pretrained": "none"},
            "training": {"epochs": epochs, "batchSize": 16, "learningRate": 0.002, "evaluate": {"every": "2 epochs"}},
            "distributed": {"device": "cpu"},
            "evaluation.gate.min": 0.9,
        }
    )
    return run


def said_by_both(run: Run, ocrft, *, name: str, folder) -> tuple[list[str], list[str]]:
    """What `ocrft predict` says of 12 unseen lines, each upright and turned, `paddleocr` saying the same; and the truth."""
    rng = np.random.default_rng(2)
    paths, truth = [], []
    while len(paths) < 24:
        picture, text = line(rng)
        if can_be_told(text):
            for label, shown in (("0_degree", picture), ("180_degree", turn(picture))):
                paths.append(folder / f"{len(paths)}.png")
                cv2.imwrite(str(paths[-1]), shown)
                truth.append(label)
    served = subprocess.run(
        [sys.executable, "-c", SAY_WITH_PADDLEOCR, name, run.workspace.export / "paddle", *paths],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env=serving_environment(),
    )
    theirs = [json.loads(row) for row in served.stdout.splitlines() if row.startswith("{")]
    predicted = ocrft("predict", "--json", run.workspace.export / "paddle", *paths)
    assert predicted.returncode == 0, predicted.stderr
    ours = [json.loads(row) for row in predicted.stdout.splitlines()]
    assert [item["label"] for item in ours] == [item["label"] for item in theirs]
    assert [item["score"] for item in ours] == pytest.approx([item["score"] for item in theirs], abs=2e-3)
    return [item["label"] for item in ours], truth


@pytest.mark.slow
def test_turned_lines_are_told_from_upright_ones(tmp_path, ocrft):
    name = "PP-LCNet_x0_25_textline_ori"
    run = make_run(tmp_path, lines=600, name=name, epochs=8)
    done = ocrft("run", run.manifest, "--workspace", run.root)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = run.result("evaluate").metrics
    assert metrics["best"]["accuracy"] >= 0.9
    assert metrics["base"]["accuracy"] <= 0.7
    said, truth = said_by_both(run, ocrft, name=name, folder=tmp_path)
    assert sum(one == other for one, other in zip(said, truth, strict=True)) >= 18
    assert "lines that were taken wrongly" in (run.workspace.evaluation / "report.html").read_text().lower()


@pytest.mark.slow
def test_the_larger_one_is_trained_and_served_too(tmp_path, ocrft):
    name = "PP-LCNet_x1_0_textline_ori"
    run = make_run(tmp_path, lines=60, name=name, epochs=1)
    run.change({"evaluation.gate.min": 0.0})
    done = ocrft("run", run.manifest, "--workspace", run.root)
    assert done.returncode == 0, done.stdout + done.stderr
    said_by_both(run, ocrft, name=name, folder=tmp_path)
