"""Tables are read from PubTabNet's JSON lines and from HTML files; whatever is wrong is named with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data import formats
from ocr_finetune_trainer.data.files import FolderFiles
from ocr_finetune_trainer.data.formats.pp_structure import HtmlError, parse_table
from ocr_finetune_trainer.data.records import Problem, Record
from ocr_finetune_trainer.data.synthetic_tables import Drawing, draw_table, write_pubtabnet
from ocr_finetune_trainer.data.table_checks import StructureError, read_grid
from ocr_finetune_trainer.data.table_labels import merge_cells, split_structure

GOOD = ["<tr>", "<td>", "</td>", "<td>", "</td>", "</tr>"]
CELLS = [{"tokens": ["a"], "bbox": [1, 1, 5, 5]}, {"tokens": []}]


def read(folder: Path, kind: Kind = Kind.TABLE) -> tuple[str, list[Record], list[Problem]]:
    request = formats.Request(files=FolderFiles(folder), kind=kind)
    found = formats.recognise(request)
    items = list(formats.layout(found.format).read(request))
    return (
        found.format.value,
        [item for item in items if isinstance(item, Record)],
        [item for item in items if isinstance(item, Problem)],
    )


def picture(path: Path) -> None:
    cv2.imwrite(str(path), np.full((20, 30, 3), 255, np.uint8))


def line(tokens: list[str], cells: list[Any], name: str = "a.png") -> str:
    return json.dumps({"filename": name, "html": {"structure": {"tokens": tokens}, "cells": cells}})


def test_drawn_tables_are_read_back(tmp_path: Path) -> None:
    write_pubtabnet(tmp_path, words=["total", "price"], tables=5, seed=1, look=Drawing(span=1.0))
    name, records, problems = read(tmp_path)
    assert (name, problems) == ("pubtabnet", [])
    for number, record in enumerate(records):
        look = Drawing(span=1.0)
        _, label = draw_table(["total", "price"], rng=np.random.default_rng((1, number)), look=look)
        assert record.place == f"gt.txt:{number + 1}"
        assert record.text == label.html
        assert record.boxes is not None
        assert split_structure(record.text) == label.structure
        for box, cell in zip(record.boxes, label.cells, strict=True):
            assert box.ignored == (cell.box is None)
            assert box.text == "".join(cell.tokens)
            if cell.box is not None:
                assert (*box.points[0], *box.points[2]) == pytest.approx(cell.box, abs=0.5)


@pytest.mark.parametrize(
    ("label", "kind", "says"),
    [
        (line(GOOD, CELLS)[:-3], "broken-json", "is no JSON"),
        (json.dumps({"filename": "a.png", "html": {"cells": []}}), "not-a-table", "has no 'structure'"),
        (json.dumps([1]), "not-a-table", "is built otherwise"),
        (line(GOOD[:-1], CELLS), "unbalanced-structure", "ends within a row"),
        (line(["<td>", "</td>"], CELLS), "unbalanced-structure", "token 1, '<td>', has no place there"),
        (line(["<tr>", "<td", ' colspan="2"', "</td>", "</tr>"], CELLS[:1]), "unbalanced-structure", "never closed"),
        (line(["<tr>", "<td>", "<td>", "</td>", "</tr>"], CELLS), "unbalanced-structure", "not followed by '</td>'"),
        (line([], []), "empty-structure", "no cell"),
        (line(GOOD, [*CELLS, CELLS[0]]), "boxes-without-cells", "has 2 cells, 3 are described"),
        (line(GOOD, CELLS[:1]), "cells-without-content", "has 2 cells, 1 are described"),
        (line(GOOD, [CELLS[0], {"tokens": ["b"]}]), "cell-without-box", "cell 2 has text but no box"),
        (line(GOOD, [{"tokens": ["a"], "bbox": [1, 1, 5]}, CELLS[1]]), "bad-box", "3 numbers"),
        (line(GOOD, [{"tokens": ["a"], "bbox": [1, 1, 1, 5]}, CELLS[1]]), "flat-box", "no area"),
        (line(GOOD, [{"tokens": ["a"], "bbox": [9, 1, 5, 5]}, CELLS[1]]), "bad-box", "ends before it begins"),
        (
            line(["<tr>", "<td", ' rowspan="2"', ">", "</td>", "</tr>"], CELLS[:1]),
            "span-over-edge",
            "cell 1 spans 2 rows, 1 are left",
        ),
        (
            line([*GOOD, "<tr>", "<td>", "</td>", "<td", "colspan='3'", ">", "</td>", "</tr>"], [*CELLS, *CELLS]),
            "span-over-edge",
            "cell 4 makes row 2 4 columns wide, the others have 2",
        ),
        (line(GOOD, CELLS, "b.png"), "missing-picture", "there is no picture 'b.png'"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, label: str, kind: str, says: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "gt.txt").write_text("\n".join([line(GOOD, CELLS), label, line(GOOD, CELLS)]) + "\n")
    _, records, problems = read(tmp_path)
    assert [record.place for record in records] == ["gt.txt:1", "gt.txt:3"]
    assert [(problem.kind, problem.place, problem.samples) for problem in problems] == [(kind, "gt.txt:2", 1)]
    assert says in problems[0].what


def test_a_table_of_one_cell_is_kept_and_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "gt.txt").write_text(line(["<tr>", "<td>", "</td>", "</tr>"], CELLS[:1]))
    _, records, problems = read(tmp_path)
    assert len(records) == 1
    assert [(p.kind, p.place, p.samples, p.fatal) for p in problems] == [("one-cell-table", "gt.txt:1", 0, False)]


def test_tables_are_not_for_other_models(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "gt.txt").write_text(line(GOOD, CELLS))
    _, records, problems = read(tmp_path, Kind.DETECTION)
    assert records == []
    assert "a detection model is trained" in problems[0].what


def test_html_files_beside_pictures(tmp_path: Path) -> None:
    html = """<!DOCTYPE html><html><head><title>Prices</title></head><body><table class="x">
      <thead><tr><th colspan=2>Head &amp; <b>bold</b></th></tr></thead>
      <tbody><tr><td bbox="1 2 10 12">a</td><td data-bbox="12,2,20,12">b c</td></tr></tbody></table></body></html>"""
    for name in ("one", "two"):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.html").write_text(html.replace(">Head", ' bbox="1,1,9,2">Head'))
    (tmp_path / "three.html").write_text(html)
    name, records, problems = read(tmp_path)
    assert name == "pp-structure"
    assert [(p.kind, p.place) for p in problems] == [("missing-picture", "three.html")]
    assert len(records) == 2
    boxes = records[0].boxes
    assert boxes is not None
    assert records[0].text == '<thead><tr><td colspan="2"></td></tr></thead><tbody><tr><td></td><td></td></tr></tbody>'
    assert [box.text for box in boxes] == ["Head & <b>bold</b>", "a", "b c"]
    assert boxes[2].points == ((12.0, 2.0), (20.0, 2.0), (20.0, 12.0), (12.0, 12.0))


@pytest.mark.parametrize(
    ("html", "says", "at"),
    [
        ("<table>\n<tr><td>a</td>\n<td>b</tr></table>", "</tr> closes what isn't open; <td> of line 3 is open", 3),
        ("<table>\n<tr><td>a<td>b</td></tr></table>", "<td> stands in the cell that begins in line 2", 2),
        ("<table><tr><td>a</td></tr>\n", "<table> is never closed", 1),
        ("<table><tr><td><table></table></td></tr></table>", "<table> stands in the cell", 1),
        ("<table></table>\n<table></table>", "more than one table", 2),
        ("<p>x</p>", "<p> stands outside a cell", 1),
        ("<table><tr>\nhello<td></td></tr></table>", "text stands outside a cell: 'hello'", 1),
        ("<table><tr><td colspan=x></td></tr></table>", "colspan is 'x' instead of a number", 1),
        ("<html></html>", "there is no <table>", 1),
    ],
)
def test_broken_html_is_named(html: str, says: str, at: int) -> None:
    with pytest.raises(HtmlError) as caught:
        parse_table(html)
    assert says in str(caught.value)
    assert caught.value.line == at


def test_a_wrong_table_in_a_html_file_is_named_with_the_line_of_its_cell(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.html").write_text("<table>\n<tr><td>a</td></tr>\n<tr>\n<td rowspan=3>b</td></tr></table>")
    picture(tmp_path / "b.png")
    (tmp_path / "b.html").write_text("<html>\n<table></table></html>")
    _, records, problems = read(tmp_path)
    assert records == []
    assert [(p.kind, p.place) for p in problems] == [("span-over-edge", "a.html:4"), ("empty-structure", "b.html:2")]


def test_the_grid_of_spans() -> None:
    tokens = split_structure(
        '<thead><tr><td rowspan="2"></td><td colspan="2"></td></tr><tr><td></td><td></td></tr></thead>'
        "<tbody><tr><td></td><td></td><td></td></tr></tbody>"
    )
    grid = read_grid(tokens)
    assert (grid.rows, grid.columns, grid.head_rows, grid.spans, grid.ragged) == (3, 3, 2, 2, False)
    assert [(cell.row, cell.column) for cell in grid.cells] == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert len(merge_cells(tokens)) == len(tokens) - 5
    overlapping = split_structure('<tr><td></td><td rowspan="2"></td></tr><tr><td colspan="2"></td></tr>')
    with pytest.raises(StructureError, match="cell 3 covers a place that cell 2 covers too"):
        read_grid(overlapping)
    with pytest.raises(ValueError, match="'<p>"):
        split_structure("<tr><p></tr>")
