"""Mistakes in dictionaries and in the boxes of pages, as a person meets them at the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_run import Run

import good_data

Prepare = Callable[..., tuple[Run, subprocess.CompletedProcess[str]]]


@pytest.fixture
def prepare(tmp_path: Path, make_run: Any, ocrft: Any) -> Prepare:
    def run(data: Path, model: dict[str, Any], **changes: Any) -> tuple[Run, subprocess.CompletedProcess[str]]:
        made = make_run(tmp_path / "run", **changes)
        made.change({"dataset.train": [{"name": "data", "uri": str(data), "format": "ppocr"}]})
        made.change({"dataset.validation": {"fraction": 0.25}, "model": {"pretrained": "none", **model}})
        done = ocrft("prepare", made.manifest, "--workspace", made.root)
        assert "Traceback" not in done.stdout + done.stderr
        return made, done

    return run


def test_everything_wrong_with_a_dictionary_is_told_at_once(prepare: Prepare, tmp_path: Path) -> None:
    data = good_data.lines(tmp_path / "data", count=12)
    (tmp_path / "d.txt").write_bytes("\ufeffa\n\nb\nab\na\n".encode())
    dictionary = {"mode": "replace", "uri": str(tmp_path / "d.txt")}
    _, done = prepare(data, {"name": "MobileNetV3_small_ctc", "dictionary": dictionary})
    assert done.returncode == 65
    for part in (
        "d.txt:1: the file begins with a byte-order mark",
        "d.txt:2: empty line",
        "d.txt:4: 'ab' is more than one character",
        "d.txt:5: 'a' is in line 1 already",
    ):
        assert part in done.stderr


def test_a_dictionary_that_lacks_characters_of_the_labels_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    data = good_data.lines(tmp_path / "data", count=12)
    (tmp_path / "d.txt").write_text("a\nb\nc\n", encoding="utf-8")
    dictionary = {"mode": "replace", "uri": str(tmp_path / "d.txt")}
    _, done = prepare(data, {"name": "MobileNetV3_small_ctc", "dictionary": dictionary})
    assert done.returncode == 65
    assert "not in the dictionary" in done.stderr
    assert "train.txt:1" in done.stderr


BOXES = {
    2: ([[5, 5], [50, 5], [50, 20]], "box 2 of pages/1.png has three corners"),
    3: ([[5, 5], [50, 5], [5, 20], [50, 20]], "box 2 of pages/2.png crosses itself"),
    4: ([[5, 5], [50, 5], [50, 5], [5, 5]], "box 2 of pages/3.png has no area"),
    5: ([[900, 900], [950, 900], [950, 950], [900, 950]], "box 2 of pages/4.png lies outside the picture"),
    6: ([[100, 5], [190, 5], [190, 20], [100, 20]], "box 2 of pages/5.png reaches 30 pixels beyond the picture"),
}


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = good_data.pages(tmp_path / "data", count=6)
    rows = (folder / "label.txt").read_text(encoding="utf-8").splitlines()
    for line, (points, _) in BOXES.items():
        path, label = rows[line - 1].split("\t")
        rows[line - 1] = f"{path}\t{json.dumps([*json.loads(label), good_data.box(points=points)])}"
    (folder / "label.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_boxes_that_teach_nothing_are_named_with_their_line(prepare: Prepare, pages: Path) -> None:
    run, done = prepare(pages, {"name": "DB_mv3"})
    assert done.returncode == 0, done.stderr
    listed = [json.loads(line) for line in run.workspace.rejected.read_text(encoding="utf-8").splitlines()]
    for line, (_, what) in BOXES.items():
        assert f"label.txt:{line}" in done.stderr
        assert what in " ".join(done.stderr.split())
        assert any(row["place"].endswith(f"label.txt:{line}") and what in row["what"] for row in listed)


def test_a_broken_line_is_told_with_its_number(prepare: Prepare, pages: Path) -> None:
    with (pages / "label.txt").open("a", encoding="utf-8") as file:
        file.write('pages/0.png\t[{"transcription": "a", \n')
    _, done = prepare(pages, {"name": "DB_mv3"})
    assert done.returncode == 65
    assert "label.txt:7" in done.stderr
    assert "no JSON" in done.stderr
