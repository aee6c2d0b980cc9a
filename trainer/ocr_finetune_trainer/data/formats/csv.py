"""Folders of pictures with a CSV file; the manifest may say which column holds what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.formats.ppocr import IGNORED_TEXTS, page_group, split_of
from ocr_finetune_trainer.data.formats.tables import read_csv
from ocr_finetune_trainer.data.records import Box, Problem, Record

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.files import Member
    from ocr_finetune_trainer.data.formats.tables import Row

__all__ = ["LAYOUT"]


class _Csv:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """A table with a column of paths and one of texts or points."""
        for name in _tables(request):
            header = next(read_csv(request.files, name, request.columns.model_dump()), None)
            if header is not None and not isinstance(header, Problem) and "path" in header.cells:
                labels = [what for what in ("text", "points") if what in header.cells]
                if labels:
                    return f"{name} has the columns {header.cells['path']!r} and {header.cells[labels[0]]!r}"
        return ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All rows; those of one picture make one page."""
        names = [request.list_file] if request.list_file else _tables(request)
        if not names:
            yield Problem(
                kind="no-list",
                place=request.files.label,
                what="holds no CSV file",
                hint="give it in dataset.train[].listFile",
                fatal=True,
                missing=True,
                samples=0,
            )
        for name in names:
            yield from _read(request, name, split=split_of(name) if len(names) > 1 else "")


def _tables(request: Request) -> list[str]:
    return [name for name in request.files.others() if name.lower().endswith((".csv", ".tsv"))]


def _read(request: Request, name: str, *, split: str) -> Iterator[Record | Problem]:
    pages: dict[str, tuple[Member, str, list[Box]]] = {}
    with_points = False
    for row in read_csv(request.files, name, request.columns.model_dump()):
        if isinstance(row, Problem):
            yield row
            continue
        place = request.files.place(name, row.line)
        if row.line == 1:
            with_points = "points" in row.cells
            lacking = _lacking(row, request)
            if lacking:
                yield Problem(
                    kind="csv-header",
                    place=place,
                    what=f"has no column for {lacking}; it has {', '.join(map(repr, row.cells.values())) or 'none'}",
                    hint="say in dataset.train[].columns which column holds it",
                    fatal=True,
                    samples=0,
                )
                return
            continue
        member = request.resolver.find(row.cells["path"], base=folder_of(name), place=place)
        if isinstance(member, Problem):
            yield member
            continue
        text = row.cells.get("text", "")
        if not with_points:
            group = row.cells.get("group", "") or page_group(member.name)
            yield Record(member=member, place=place, text=text, group=group, split=split)
            continue
        box = _box(row.cells["points"], text, place)
        if isinstance(box, Problem):
            yield box
            continue
        pages.setdefault(member.name, (member, place, []))[2].append(box)
    for member, place, boxes in pages.values():
        yield Record(member=member, place=place, boxes=tuple(boxes), split=split)


def _lacking(row: Row, request: Request) -> str:
    if "path" not in row.cells:
        return "the picture's path"
    if request.kind is Kind.DETECTION and "points" not in row.cells:
        return "the points of a box"
    return "" if {"text", "points"} & set(row.cells) else "the text"


def _box(cell: str, text: str, place: str) -> Box | Problem:
    try:
        values = json.loads(cell if cell.strip().startswith("[") else f"[{cell}]")
        if values and not isinstance(values[0], list):
            if len(values) == 4:
                left, top, right, bottom = values
                values = [left, top, right, top, right, bottom, left, bottom]
            values = list(zip(values[0::2], values[1::2], strict=True))
        points = tuple((float(x), float(y)) for x, y in values)
    except (ValueError, TypeError):
        points = ()
    if len(points) < 3:
        return Problem(
            kind="bad-box",
            place=place,
            what=f"its points can't be read: {cell[:60]!r}",
            hint="write [[x, y], [x, y], [x, y], [x, y]]",
        )
    return Box(points=points, text=text, ignored=text in IGNORED_TEXTS)


LAYOUT = _Csv()
