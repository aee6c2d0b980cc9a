"""PP-OCRv6 goes through all stages of a manifest, with a smaller export too; what it learns is not what is asked here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocr_finetune_api.model_table import lookup


@pytest.fixture
def some(tmp_path: Path, digits: Path) -> Path:
    """A few dozen digits, as a list of lines."""
    folder = tmp_path / "data"
    folder.mkdir()
    pictures = sorted(digits.rglob("*.png"))[::45]
    (folder / "list.txt").write_text("".join(f"{path}\t{path.name[0]}\n" for path in pictures), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_recogniser_is_trained_with_guidance_and_exported_in_eight_bits(some, tmp_path, make_run, ocrft):
    name = "PP-OCRv6_tiny_rec"
    run = make_run(tmp_path / "run")
    run.change(
        {
            "model": {"name": name, "pretrained": "none", "dictionary": {"mode": "replace"}, "guidance": "keep"},
            "dataset.train": [{"name": "digits", "uri": str(some), "format": "ppocr"}],
            "dataset.validation": {"fraction": 0.2},
            "dataset.test": {"fraction": 0.2},
            "training": {"epochs": 1, "batchSize": 8},
            "evaluation": {},
            "export": {"formats": ["paddle", "onnx"], "quantize": "int8", "maxDrop": 1.0},
        }
    )
    done = ocrft("run", run.manifest, "--workspace", run.root)
    assert done.returncode == 0, done.stdout + done.stderr
    evaluated = run.result("evaluate").metrics
    assert {"accuracy", "editSimilarity"} <= evaluated["best"].keys()
    exported = run.workspace.export
    assert f"model_name: {lookup(name).serving_name}" in (exported / "paddle" / "inference.yml").read_text()
    assert (exported / "int8" / "inference.onnx").stat().st_size < 0.8 * (
        next((exported / "onnx").glob("*.onnx")).stat().st_size
    )
    picture = some.parent / "one.png"
    picture.write_bytes(Path((some / "list.txt").read_text().split("\t")[0]).read_bytes())
    for model in (exported / "paddle", exported / "int8" / "inference.onnx"):
        read = ocrft("predict", "--json", model, picture)
        assert read.returncode == 0, read.stderr
        assert "text" in json.loads(read.stdout)["texts"][0]
