import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ocr_finetune_api.manifest import load


def ocrft(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ocr_finetune_trainer.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def lines(tmp_path):
    folder = tmp_path / 'My "数据" 1'
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 20)).save(folder / f"{number}.png")
    (folder / "train.txt").write_text("0.png\tab\n1.png\tc\n2.png\tdd\n", encoding="utf-8")
    return folder


def test_the_manifest_it_writes_is_valid_and_names_the_data(lines, tmp_path):
    done = ocrft("init", lines, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = load(tmp_path / "finetune.yaml")
    assert tmp_path / manifest.spec.dataset.train[0].uri == lines
    assert manifest.spec.dataset.train[0].format == "ppocr"
    assert manifest.metadata.name == "my-1"
    assert manifest.spec.model.name == "PP-OCRv5_mobile_rec"
    assert "3 labelled lines" in (tmp_path / "finetune.yaml").read_text()


def test_pages_get_a_detector(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    Image.new("RGB", (100, 80)).save(folder / "page.png")
    boxes = [{"transcription": "a", "points": [[1, 1], [20, 1], [20, 9], [1, 9]], "difficult": False}]
    (folder / "label.txt").write_text(f"page.png\t{json.dumps(boxes)}\n")
    done = ocrft("init", folder, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pages"] == 1
    assert load(tmp_path / "finetune.yaml").spec.model.name == "PP-OCRv5_mobile_det"


def test_tables_get_a_table_model(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    Image.new("RGB", (100, 80)).save(folder / "a.png")
    structure = {"tokens": ["<tr>", "<td>", "</td>", "<td>", "</td>", "</tr>"]}
    cells = [{"tokens": ["a"], "bbox": [1, 1, 9, 9]}, {"tokens": []}]
    (folder / "gt.txt").write_text(json.dumps({"filename": "a.png", "html": {"structure": structure, "cells": cells}}))
    done = ocrft("init", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 tables with cells" in done.stderr
    spec = load(tmp_path / "finetune.yaml").spec
    assert (spec.model.name, spec.dataset.train[0].format) == ("SLANet", "pubtabnet")


def test_nothing_is_overwritten_without_force(lines, tmp_path):
    (tmp_path / "finetune.yaml").write_text("mine")
    done = ocrft("init", lines, cwd=tmp_path)
    assert (done.returncode, (tmp_path / "finetune.yaml").read_text()) == (73, "mine")
    assert "exists already" in done.stderr
    assert ocrft("init", lines, "--force", cwd=tmp_path).returncode == 0
    assert load(tmp_path / "finetune.yaml").metadata.name == "my-1"


@pytest.mark.parametrize(("content", "code"), [(None, 66), ("no labels here", 65)])
def test_a_folder_without_labels_is_refused(tmp_path, content, code):
    folder = tmp_path / "folder"
    if content is not None:
        folder.mkdir()
        (folder / "readme.md").write_text(content)
    done = ocrft("init", folder, cwd=tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "finetune.yaml").exists()
