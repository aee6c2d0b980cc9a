"""Whatever is wrong with labelled tables is said by `ocrft check` with file and line, all in one go."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ocr_finetune_trainer.data.pictures import encode

ROW = ["<tr>", "<td>", "</td>", "<td>", "</td>", "</tr>"]
CELLS = [{"tokens": ["a"], "bbox": [2, 2, 12, 12]}, {"tokens": ["b"], "bbox": [20, 2, 30, 12]}]


def label(number: int, tokens=ROW, cells=CELLS) -> str:
    return json.dumps({"filename": f"{number}.png", "html": {"structure": {"tokens": tokens}, "cells": cells}})


def spanning(name: str, count: int) -> list[str]:
    return ["<tr>", "<td", f' {name}="{count}"', ">", "</td>", "</tr>"]


# What is wrong with a line, and what is said.
BAD_LINES = (
    (label(1)[:-4], "is no JSON"),
    (label(2, ROW[:-1]), "ends within a row"),
    (label(3, ["<tr>", "<td>", "<td>", "</td>", "</tr>"]), "is not followed by '</td>'"),
    (label(4, spanning("rowspan", 2), CELLS[:1]), "cell 1 spans 2 rows, 1 are left"),
    (label(5, [*ROW, *spanning("colspan", 5)], [*CELLS, CELLS[0]]), "cell 3 makes row 2 5 columns wide"),
    (label(6, cells=[CELLS[0], {"tokens": ["b"]}]), "cell 2 has text but no box"),
    (label(7, cells=[*CELLS, CELLS[0]]), "the structure has 2 cells, 3 are described"),
    (label(8, cells=CELLS[:1]), "the structure has 2 cells, 1 are described"),
    (
        label(9, ["<tr>", *["<td>", "</td>"] * 499, "</tr>"], [{"tokens": []}] * 499),
        "has 501 tokens, over the model's 500",
    ),
    (label(10, [*spanning("colspan", 11), *spanning("colspan", 11)], CELLS), 'colspan="11"'),
    (label(11, cells=[CELLS[0], {"tokens": ["b"], "bbox": [200, 2, 230, 12]}]), "lies outside the picture"),
    (label(12, [*ROW[:3], "</tr>"], CELLS[:1]), "the table has a single cell"),
)
BAD_PAGES = {
    "cut.html": ("<table>\n<tr><td>a</td>\n<td>b</tr></table>", 3, "</tr> closes what isn't open"),
    "wide.html": ("<table>\n<tr>\n<td rowspan=3>b</td></tr></table>", 3, "cell 1 spans 3 rows"),
    "open.html": ("<p>\n</p>", 1, "<p> stands outside a cell"),
}


def check(folder: Path, ocrft):
    manifest = folder.parent / "finetune.yaml"
    spec = {"model": {"name": "SLANet", "pretrained": "none"}, "dataset": {"train": [{"uri": str(folder)}]}}
    document = {"apiVersion": "ocrfinetune.dev/v1alpha1", "kind": "OCRFineTune", "metadata": {"name": "bad"}}
    manifest.write_text(yaml.safe_dump({**document, "spec": spec}), encoding="utf-8")
    done = ocrft("check", manifest, "--json")
    assert "Traceback" not in done.stdout + done.stderr
    return done, [f"{p['place']}: {p['what']}" for p in json.loads(done.stdout)["problems"]]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twenty pictures that tables may have."""
    made = tmp_path / "data"
    made.mkdir()
    for number in range(20):
        picture = np.random.default_rng(number).integers(0, 256, (30, 60, 3), dtype=np.uint8)
        (made / f"{number}.png").write_bytes(encode(picture, lossless=True))
    return made


def test_bad_lines_are_named_with_their_line(folder, ocrft):
    lines = [label(0), *(text for text, _ in BAD_LINES), *(label(number) for number in range(13, 20))]
    (folder / "gt.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done, problems = check(folder, ocrft)
    assert done.returncode == 65, done.stderr
    for number, (_, says) in enumerate(BAD_LINES, start=1):
        assert [p for p in problems if f"gt.txt:{number + 1}" in p and says in p], (number, says, problems)


def test_bad_pages_are_named_with_their_line(folder, ocrft):
    for number, (name, (html, _, _)) in enumerate(BAD_PAGES.items()):
        (folder / name).write_text(html, encoding="utf-8")
        (folder / f"{number}.png").rename(folder / f"{Path(name).stem}.png")
    for number in range(len(BAD_PAGES), 20):
        (folder / f"{number}.html").write_text("<table><tr><td>a</td><td>b</td></tr></table>", encoding="utf-8")
    done, problems = check(folder, ocrft)
    assert done.returncode == 65, done.stderr
    for name, (_, line, says) in BAD_PAGES.items():
        assert [p for p in problems if f"{name}:{line}" in p and says in p], (name, problems)
    assert len(problems) == len(BAD_PAGES), problems
