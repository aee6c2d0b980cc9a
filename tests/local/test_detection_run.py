"""`ocrft run` trains a detector on pages of real handwritten digits on noisy paper, from nothing, on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from local_run import serving_environment
from sklearn.datasets import load_digits

from ocr_finetune_api import results
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.workspace import Workspace

WIDTH, HEIGHT, SIDE = 160, 128, 24

FIND_WITH_PADDLEOCR = """
import json, sys
from paddleocr import TextDetection
model = TextDetection(model_name="PP-OCRv3_mobile_det", model_dir=sys.argv[1])
print(json.dumps([[p.tolist() for p in r["dt_polys"]] for r in model.predict(sys.argv[2:])]))
"""


def _page(rng: np.random.Generator, digits: np.ndarray) -> tuple[np.ndarray, list[list[list[int]]]]:
    """Two lines of digits on paper, and their outlines."""
    paper = rng.normal(205, 14, (HEIGHT, WIDTH)).clip(0, 255)
    outlines = []
    for top in (12, 72):
        count = int(rng.integers(3, 6))
        x, y = int(rng.integers(6, WIDTH - 6 - count * SIDE)), top + int(rng.integers(-5, 14))
        for place in range(count):
            ink = cv2.resize(digits[rng.integers(len(digits))] / 16.0, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            left = x + place * SIDE
            paper[y : y + SIDE, left : left + SIDE] *= 1.0 - 0.85 * ink.clip(0, 1)
        right, bottom = x + count * SIDE, y + SIDE
        outlines.append([[x, y], [right, y], [right, bottom], [x, bottom]])
    return np.repeat(paper.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), outlines


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages in PaddleOCR's layout: 64 to train on, 16 unseen ones; no digit picture is on both sides."""
    folder = tmp_path_factory.mktemp("pages")
    images = load_digits().images
    for name, count, digits in (("train", 64, images[:1400]), ("test", 16, images[1400:])):
        lines = []
        for index in range(count):
            picture, outlines = _page(np.random.default_rng((count, index)), digits)
            cv2.imwrite(str(folder / f"{name}_{index}.png"), picture)
            label = [{"transcription": "digits", "points": outline} for outline in outlines]
            lines.append(f"{name}_{index}.png\t{json.dumps(label)}\n")
        (folder / f"{name}_label.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)  # three minutes of a core; a loaded machine may take much longer
def test_a_detector_learns_from_pages_and_is_served(pages: Path, tmp_path: Path, ocrft) -> None:
    source = {"uri": str(pages), "format": "ppocr"}
    manifest = {
        "apiVersion": "ocrfinetune.dev/v1alpha1",
        "kind": "OCRFineTune",
        "metadata": {"name": "pages"},
        "spec": {
            "model": {"name": "DB_mv3", "pretrained": "none"},
            "dataset": {
                "train": [{**source, "name": "pages", "listFile": "train_label.txt"}],
                "validation": {"fraction": 0.125},
                "test": {**source, "listFile": "test_label.txt"},
            },
            "training": {
                "epochs": 16,
                "batchSize": 4,
                "learningRate": 0.002,
                "evaluate": {"every": "4 epochs"},
                "ema": 0,
                "config": {"PostProcess": {"max_candidates": 900}},
            },
            "distributed": {"device": "cpu"},
            "evaluation": {"gate": {"metric": "hmean", "min": 0.9}},
        },
    }
    (tmp_path / "pages.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    done = ocrft("run", tmp_path / "pages.yaml", "--workspace", tmp_path / "workspace", "--json", timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr
    workspace = Workspace(tmp_path / "workspace", "pages-local")
    result = results.read(workspace.result(Stage.EVALUATE))
    assert result is not None
    assert result.metrics["best"]["hmean"] >= 0.9
    assert result.metrics["base"]["hmean"] < 0.5

    served_with = yaml.safe_load((workspace.export / "paddle" / "inference.yml").read_text(encoding="utf-8"))
    assert served_with["PostProcess"]["max_candidates"] == 900

    pictures = [str(pages / f"test_{index}.png") for index in range(4)]
    served = subprocess.run(
        [sys.executable, "-c", FIND_WITH_PADDLEOCR, workspace.export / "paddle", *pictures],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env=serving_environment(),
    )
    found = json.loads(served.stdout.splitlines()[-1])
    assert sum(len(page) for page in found) >= 7
