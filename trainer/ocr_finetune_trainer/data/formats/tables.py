"""Reads CSV files whose headers vary: which column holds what is asked of the manifest, then of a list of usual
names.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocr_finetune_trainer.data.records import Problem

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.files import Files

__all__ = ["Row", "find_columns", "read_csv"]

USUAL: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "image_path", "img_path", "file_path", "filepath", "image", "img", "file", "filename", "file_name",
             "image_name", "picture", "图片", "圖片", "路径", "路徑"),
    "text": ("text", "character", "char", "label", "transcription", "words", "word", "ground_truth", "gt", "文本",
             "文字", "字符", "字元", "字"),
    "id": ("id", "char_id", "character_id", "class_id", "class", "label_id", "编号", "編號"),
    "points": ("points", "polygon", "poly", "box", "bbox", "quad"),
    "group": ("group", "page", "writer", "document", "doc"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its line in the file, and its cells by what they hold."""

    line: int
    cells: Mapping[str, str]


def find_columns(header: list[str], named: Mapping[str, str], *, place: str) -> tuple[dict[str, int], list[Problem]]:
    """Says which column holds what.

    Args:
        header: The first row.
        named: Column names that the manifest gives, by what they hold; empty ones are looked up among the usual names.
        place: The file, for messages.

    Returns:
        Column numbers by what they hold, and what is wrong.
    """
    plain = [cell.strip().lower() for cell in header]
    found: dict[str, int] = {}
    problems: list[Problem] = []
    for what, usual in USUAL.items():
        name = named.get(what, "")
        if name:
            if name.strip().lower() in plain:
                found[what] = plain.index(name.strip().lower())
                continue
            near = difflib.get_close_matches(name, header, n=1)
            problems.append(
                Problem(
                    kind="csv-header",
                    place=place,
                    fatal=True,
                    samples=0,
                    what=f"has no column {name!r}; its columns are {', '.join(map(repr, header))}",
                    hint=f"write columns: {{{what}: {(near or header or [''])[0]!r}}}",
                )
            )
            continue
        number = next((plain.index(candidate) for candidate in usual if candidate in plain), None)
        if number is not None and number not in found.values():
            found[what] = number
    return found, problems


def read_csv(files: Files, name: str, named: Mapping[str, str]) -> Iterator[Row | Problem]:
    """Reads a table of labels; the first row is its header."""
    place = files.place(name)
    try:
        text = files.read_text(name)
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(kind="unreadable-list", place=place, what=f"can't be read ({error})", fatal=True, missing=True)
        return
    first = text.split("\n", 1)[0]
    delimiter = max(",\t;", key=first.count)
    reader = csv.reader(io.StringIO(text.replace("\0", "\ufffd")), delimiter=delimiter)
    try:
        header = next(reader)
    except StopIteration:
        yield Problem(kind="empty-list", place=place, what="is empty", hint="write a header and a row a picture",
                      fatal=True, samples=0)  # fmt: skip
        return
    columns, problems = find_columns(header, named, place=f"{place}:1")
    yield from problems
    if problems:
        return
    yield Row(1, {what: header[number] for what, number in columns.items()})
    try:
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) <= max(columns.values(), default=0):
                yield Problem(
                    kind="short-row", place=files.place(name, line),
                    what=f"has {len(cells)} cells where the header has {len(header)}",
                    hint="put quotes around cells that hold the delimiter",
                )  # fmt: skip
                continue
            yield Row(line, {what: cells[number] for what, number in columns.items()})
    except csv.Error as error:
        yield Problem(kind="broken-csv", place=files.place(name, reader.line_num), what=f"is no CSV ({error})",
                      fatal=True)  # fmt: skip
