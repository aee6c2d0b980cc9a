"""Draws tables from the user's own words: pictures whose structure and cell boxes are known exactly.

For tests and the demo, and for a first model where labelled tables are rare. Everything comes from one random
generator, so a seed gives the same tables on every machine. Letters are Pillow's own unless a font file is given; words
of a script that the font lacks would come out as empty boxes, so they are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ocr_finetune_trainer.data.pictures import encode
from ocr_finetune_trainer.data.table_labels import Cell, TableLabel, split_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Drawing", "draw_table", "write_pubtabnet"]

_FIGURES = tuple("0123456789")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What drawn tables look like.

    Attributes:
        rows: Fewest and most rows below the head.
        columns: Fewest and most columns.
        span: Probability that a table has a cell over two columns in its head, and one over two rows below.
        empty: Probability that a cell below the head is empty.
        lines: Probability that a table is ruled; others have a line under the head only.
        font: A TrueType or OpenType file; None for Pillow's own.
        font_size: Smallest and largest height of letters in pixels.
        padding: Fewest and most pixels around a cell's text.
    """

    rows: tuple[int, int] = (1, 5)
    columns: tuple[int, int] = (2, 5)
    span: float = 0.3
    empty: float = 0.1
    lines: float = 0.7
    font: Path | None = None
    font_size: tuple[int, int] = (12, 20)
    padding: tuple[int, int] = (4, 12)


@dataclass(frozen=True, slots=True)
class _Place:
    row: int
    column: int
    rows: int
    columns: int
    text: str


def _layout(words: Sequence[str], look: Drawing, rng: np.random.Generator) -> tuple[list[_Place], int, int]:
    """Cells in reading order, and how many rows (with the head) and columns there are."""
    rows = 1 + int(rng.integers(look.rows[0], look.rows[1] + 1))
    columns = int(rng.integers(look.columns[0], look.columns[1] + 1))
    wide = int(rng.integers(columns - 1)) if columns > 1 and rng.random() < look.span else -1
    tall = None
    if rows > 2 and rng.random() < look.span:
        tall = (int(rng.integers(1, rows - 1)), int(rng.integers(columns)))
    places = []
    for row in range(rows):
        column = 0
        while column < columns:
            if tall is not None and (row - 1, column) == tall:
                column += 1
                continue
            width = 2 if row == 0 and column == wide else 1
            height = 2 if (row, column) == tall else 1
            places.append(_Place(row, column, height, width, _text(words, look, rng, head=row == 0)))
            column += width
    return places, rows, columns


def _text(words: Sequence[str], look: Drawing, rng: np.random.Generator, *, head: bool) -> str:
    if not head and rng.random() < look.empty:
        return ""
    if not head and rng.random() < 0.5:
        return "".join(rng.choice(_FIGURES, size=int(rng.integers(1, 5))))
    return " ".join(str(words[int(i)]) for i in rng.integers(len(words), size=int(rng.integers(1, 3))))


def _structure(places: Sequence[_Place], rows: int) -> tuple[str, ...]:
    tokens: list[str] = []
    for row in range(rows):
        tokens += {0: ["<thead>"], 1: ["<tbody>"]}.get(row, [])
        tokens.append("<tr>")
        for place in (p for p in places if p.row == row):
            if place.rows == place.columns == 1:
                tokens += ["<td>", "</td>"]
                continue
            span = f' colspan="{place.columns}"' if place.columns > 1 else f' rowspan="{place.rows}"'
            tokens += ["<td", span, ">", "</td>"]
        tokens.append("</tr>")
        if row == 0:
            tokens.append("</thead>")
    return (*tokens, "</tbody>") if rows > 1 else tuple(tokens)


def _font(look: Drawing, size: int) -> Any:
    return ImageFont.load_default(size) if look.font is None else ImageFont.truetype(str(look.font), size)


def _check_words(words: Sequence[str], font: Any) -> None:
    if not words:
        raise ValueError("drawing tables needs at least one word")
    missing = font.getmask("\U0010fffe")
    outline = (missing.size, bytes(missing))
    lacking = sorted({c for w in words for c in w if not c.isspace() and _shape(font, c) == outline})
    if lacking:
        raise ValueError(f"the font has no letters for {''.join(lacking[:20])!r}; give one that has (Drawing.font)")


def _shape(font: Any, character: str) -> tuple[Any, bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def draw_table(
    words: Sequence[str], *, rng: np.random.Generator, look: Drawing | None = None
) -> tuple[NDArray[np.uint8], TableLabel]:
    """Draws one table.

    Args:
        words: What cells may say; the user's corpus. Cells below the head hold numbers too.
        rng: Decides everything.
        look: What tables look like.

    Returns:
        The picture, uint8 (H, W, 3), BGR; its label, boxes being (left, top, right, bottom) around the text.

    Raises:
        ValueError: There are no words, or the font lacks letters.
    """
    look = look or Drawing()
    font = _font(look, int(rng.integers(look.font_size[0], look.font_size[1] + 1)))
    _check_words(words, font)
    places, rows, columns = _layout(words, look, rng)
    padding = int(rng.integers(look.padding[0], look.padding[1] + 1))
    ruled = bool(rng.random() < look.lines)
    widths, heights = np.full(columns, 24.0), np.full(rows, 0.0)
    sizes = [font.getbbox(place.text or "0") for place in places]
    for place, (_, _, right, bottom) in zip(places, sizes, strict=True):
        columns_of = slice(place.column, place.column + place.columns)
        widths[columns_of] = np.maximum(widths[columns_of], (right + 2 * padding) / place.columns)
        heights[place.row] = max(heights[place.row], bottom + 2 * padding)
    x = np.round(np.concatenate([[0], np.cumsum(widths)])).astype(int) + int(rng.integers(2, 10))
    y = np.round(np.concatenate([[0], np.cumsum(heights)])).astype(int) + int(rng.integers(2, 10))
    paper = int(rng.integers(225, 256))
    ink = int(rng.integers(0, 90))
    page = Image.new("L", (int(x[-1]) + int(rng.integers(2, 10)), int(y[-1]) + int(rng.integers(2, 10))), paper)
    pen = ImageDraw.Draw(page)
    if not ruled:
        pen.line([(x[0], y[1]), (x[-1], y[1])], fill=ink)
    cells = []
    for place, (left, top, right, bottom) in zip(places, sizes, strict=True):
        x0, x1 = int(x[place.column]), int(x[place.column + place.columns])
        y0, y1 = int(y[place.row]), int(y[place.row + place.rows])
        if ruled:
            pen.rectangle((x0, y0, x1, y1), outline=ink)
        if not place.text:
            cells.append(Cell())
            continue
        at = (x0 + padding, y0 + max(0, (y1 - y0 - bottom - top) // 2))
        pen.text(at, place.text, fill=ink, font=font)
        box = (at[0] + left, at[1] + top, at[0] + right, at[1] + bottom)
        cells.append(Cell(split_text(place.text), tuple(float(value) for value in box)))
    grey = np.asarray(page, dtype=np.float64) + rng.normal(0.0, 3.0, size=(page.height, page.width))
    picture = np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    return picture, TableLabel(_structure(places, rows), tuple(cells))


def write_pubtabnet(folder: Path, *, words: Sequence[str], tables: int, seed: int, look: Drawing | None = None) -> Path:
    """Writes drawn tables as PaddleOCR's table layout: pictures and one JSON line each.

    Args:
        folder: Where to; made if it isn't there.
        words: As for `draw_table`.
        tables: How many.
        seed: Decides everything.
        look: What tables look like.

    Returns:
        The label file, `gt.txt`.
    """
    pictures = folder / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(tables):
        picture, label = draw_table(words, rng=np.random.default_rng((seed, number)), look=look)
        name = f"images/{number:06d}.png"
        (folder / name).write_bytes(encode(picture, lossless=True))
        cells = [
            {"tokens": list(cell.tokens)} | ({} if cell.box is None else {"bbox": [round(v) for v in cell.box]})
            for cell in label.cells
        ]
        html = {"structure": {"tokens": list(label.structure)}, "cells": cells}
        lines.append(json.dumps({"filename": name, "html": html}, ensure_ascii=False))
    labels = folder / "gt.txt"
    labels.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return labels
