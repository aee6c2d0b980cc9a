"""PubTabNet's JSON lines, PaddleOCR's layout of tables: a picture, its structure tokens and its cells a line.

`{"filename": "a.png", "html": {"structure": {"tokens": ["<tr>", …]}, "cells": [{"tokens": ["1"], "bbox": [l, t, r, b]},
…]}}`, with `split` where a file holds several. An empty cell has no box; a box has 4 numbers, or 8 for four corners.
A table becomes a record whose text is its structure and whose boxes are its cells; a cell without a box has no points.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.formats.ppocr import split_of
from ocr_finetune_trainer.data.records import Box, Problem, Record
from ocr_finetune_trainer.data.table_checks import problem_of
from ocr_finetune_trainer.data.table_labels import Cell, TableLabel, as_corners, normalise_tokens

__all__ = ["LAYOUT", "label_of", "records_of"]

_SUFFIXES = (".txt", ".json", ".jsonl")
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_HINT = 'write {"filename": …, "html": {"structure": {"tokens": […]}, "cells": [{"tokens": […], "bbox": […]}, …]}}'


class _PubTabNet:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """A text file whose first line is a JSON object with `html.structure`."""
        found = _lists(request)
        return f"{', '.join(found[:3])}: tables as JSON lines (html.structure, html.cells)" if found else ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All lines of all lists."""
        lists = [request.list_file] if request.list_file else _lists(request)
        if not lists:
            yield Problem(kind="no-list", place=request.files.label, fatal=True, missing=True, samples=0,
                          what="holds no JSON lines of tables", hint=_HINT)  # fmt: skip
            return
        for name in lists:
            yield from _read(request, name, split=split_of(name) if len(lists) > 1 else "")


def _lists(request: Request) -> list[str]:
    candidates = [n for n in request.files.others() if n.lower().endswith(_SUFFIXES) and n.count("/") <= 2]
    return [name for name in candidates[:200] if _looks_like_tables(request, name)]


def _looks_like_tables(request: Request, name: str) -> bool:
    """Whether the beginning speaks of tables; a broken first line must not hide a layout."""
    member = request.files.find(name)
    if member is None:
        return False
    try:
        head = request.files.read(member)[:20_000]
    except OSError:
        return False
    return head.lstrip(b"\xef\xbb\xbf \n\r").startswith(b"{") and b'"html"' in head and b'"structure"' in head


def _read(request: Request, name: str, *, split: str) -> Iterator[Record | Problem]:
    try:
        text = request.files.read_text(name)
    except (OSError, UnicodeDecodeError) as error:
        missing = isinstance(error, FileNotFoundError)
        yield Problem(kind="missing-list" if missing else "unreadable-list", place=request.files.place(name),
                      what="there is no such list" if missing else f"can't be read ({error})", fatal=True,
                      missing=missing, samples=0)  # fmt: skip
        return
    base = folder_of(name)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield from _line(request, line, base=base, place=request.files.place(name, number), split=split)


def _line(request: Request, line: str, *, base: str, place: str, split: str) -> Iterator[Record | Problem]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        yield Problem(kind="broken-json", place=place, what=f"is no JSON ({error.msg} at column {error.colno})",
                      hint="correct or remove the line")  # fmt: skip
        return
    label = label_of(value)
    if isinstance(label, str):
        yield Problem(kind="not-a-table", place=place, what=label, hint=_HINT)
        return
    filename = value.get("filename")
    if not isinstance(filename, str):
        yield Problem(kind="empty-path", place=place, what="names no picture", hint=_HINT)
        return
    split = _SPLITS.get(str(value.get("split", "")), split)
    yield from records_of(request, label, filename, base=base, place=place, split=split)


def label_of(value: Any) -> TableLabel | str:
    """The label of one line, or why it has none."""
    try:
        html = value["html"]
        tokens = [str(token) for token in html["structure"]["tokens"]]
        cells = tuple(_cell(cell) for cell in html["cells"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        missing = f"has no {error}" if isinstance(error, KeyError) else f"is built otherwise ({error})"
        return f"the table {missing}"
    return TableLabel(normalise_tokens(tokens), cells)


def _cell(value: Any) -> Cell:
    tokens = tuple(str(token) for token in value["tokens"] if token)
    box = value.get("bbox")
    if not box:
        return Cell(tokens)
    flat = [number for point in box for number in (point if isinstance(point, list) else [point])]
    return Cell(tokens, tuple(float(number) for number in flat))


def records_of(
    request: Request,
    label: TableLabel,
    picture: str,
    *,
    base: str,
    place: str,
    split: str = "",
    place_of: Callable[[int], str] | None = None,
) -> Iterator[Record | Problem]:
    """Makes a record of a label, and says what is wrong with it.

    Args:
        request: What is read.
        label: The table.
        picture: The picture's path as written.
        base: Folder of the label file.
        place: Where the label stands.
        split: The side that the layout gives it.
        place_of: Where a cell stands, by its number from 1, if cells have places of their own; 0 is the table.
    """
    if request.kind is not Kind.TABLE:
        yield Problem(kind="a-table", place=place, what=f"is a table, and a {request.kind.value} model is trained",
                      hint="choose SLANet or SLANet_plus")  # fmt: skip
        return
    wrong = problem_of(label)
    if wrong is not None:
        where = place if place_of is None else place_of(wrong.cell)
        yield Problem(kind=wrong.kind, place=where, what=wrong.what, hint="correct or remove the table")
        return
    member = request.resolver.find(picture, base=base, place=place)
    if isinstance(member, Problem):
        yield member
        return
    if len(label.cells) == 1:
        yield Problem(kind="one-cell-table", place=place, what="the table has a single cell", samples=0,
                      hint="look whether its picture was cut from a larger table")  # fmt: skip
    boxes = tuple(_box(cell) for cell in label.cells)
    yield Record(member=member, place=place, text=label.html, boxes=boxes, split=split)


def _box(cell: Cell) -> Box:
    text = "".join(cell.tokens)
    if cell.box is None:
        return Box(points=(), text=text, ignored=True)
    corners = as_corners(cell.box, numbers=8)
    return Box(points=tuple(zip(corners[0::2], corners[1::2], strict=True)), text=text)


LAYOUT = _PubTabNet()
