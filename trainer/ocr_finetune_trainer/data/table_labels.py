"""What a table model learns: structure tokens as classes, and a box for each cell.

A table is written as PubTabNet writes it (https://arxiv.org/abs/1911.10683): HTML without its text, cut into tokens,
and the cells in reading order. `<td>` and `</td>` become the one token `<td></td>`, because a cell without spans is
always both; a cell with spans stays `<td`, ` colspan="2"`, `>`, `</td>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "CELL_TOKENS",
    "MERGED_CELL",
    "BoxFormat",
    "Cell",
    "EncodedTable",
    "TableLabel",
    "Vocabulary",
    "encode",
    "encode_boxes",
    "merge_cells",
    "split_structure",
    "split_text",
    "vocabulary_for",
]

MERGED_CELL = "<td></td>"
CELL_TOKENS = frozenset({"<td>", "<td", MERGED_CELL})
_TOKEN = re.compile(r"</?(?:thead|tbody|tr|td)>|<td(?=\s)|\s+(?:colspan|rowspan)\s*=\s*\"?'?\d+\"?'?|>")
_SPAN = re.compile(r"\s*(colspan|rowspan)\s*=\s*[\"']?(\d+)[\"']?")
_CONTENT_TOKEN = re.compile(r"</?[a-zA-Z][^<>]*>|.", re.DOTALL)


def _spans(kind: str, numbers: Sequence[int]) -> list[str]:
    return [f' {kind}="{number}"' for number in numbers]


# The order of PaddleOCR's two structure dictionaries: official weights know the tokens by their place in it.
_ENGLISH = (
    *("<thead>", "<tr>", "<td>", "</td>", "</tr>", "</thead>", "<tbody>", "</tbody>", "<td"),
    *_spans("colspan", (5,)),
    ">",
    *_spans("colspan", (2, 3)),
    *_spans("rowspan", (2,)),
    *_spans("colspan", (4, 6)),
    *_spans("rowspan", (3,)),
    *_spans("colspan", (9, 10, 7)),
    *_spans("rowspan", (4, 5, 9)),
    *_spans("colspan", (8,)),
    *_spans("rowspan", (8, 6, 7, 10)),
)
_CHINESE = (
    *("<thead>", "</thead>", "<tbody>", "</tbody>", "<tr>", "</tr>", "<td>", "<td", ">", "</td>"),
    *_spans("colspan", range(2, 21)),
    *_spans("rowspan", range(2, 21)),
)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that a model knows.

    Attributes:
        lines: The structure dictionary, a token a line, as the export's `character_dict` holds it.
        merged: Whether `<td>` followed by `</td>` is one token.
    """

    lines: tuple[str, ...]
    merged: bool = True

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The tokens by class: start (`sos`), the dictionary, end (`eos`)."""
        tokens = list(self.lines)
        if self.merged:
            if MERGED_CELL not in tokens:
                tokens.append(MERGED_CELL)
            if "<td>" in tokens:
                tokens.remove("<td>")
        return ("sos", *tokens, "eos")

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The class of each token."""
        return {token: number for number, token in enumerate(self.classes)}

    @property
    def end(self) -> int:
        """The class that ends a structure; the start is class 0."""
        return len(self.classes) - 1

    @cached_property
    def cell_classes(self) -> frozenset[int]:
        """The classes that begin a cell."""
        return frozenset(number for token, number in self.numbers.items() if token in CELL_TOKENS)

    @property
    def widest_span(self) -> int:
        """The largest span that can be said."""
        return max(int(match[2]) for match in map(_SPAN.fullmatch, self.lines) if match)


_OF_MODEL = {"SLANet": Vocabulary(_ENGLISH), "SLANet_small": Vocabulary(_ENGLISH), "SLANet_plus": Vocabulary(_CHINESE)}


def vocabulary_for(model_name: str) -> Vocabulary:
    """The structure vocabulary of a table model.

    Raises:
        KeyError: It is no table model.
    """
    return _OF_MODEL[model_name]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        tokens: Its text: characters, and inline tags such as `<b>`; empty for an empty cell.
        box: Where its text lies, 4 numbers (left, top, right, bottom) or 8 (four corners), in pixels; None if unknown.
    """

    tokens: tuple[str, ...] = ()
    box: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class TableLabel:
    """A labelled table.

    Attributes:
        structure: Its tokens, cells not merged, spans with their leading space.
        cells: Its cells in reading order, one for each `<td>` or `<td`.
    """

    structure: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def html(self) -> str:
        """The structure as one string, without the cells' text."""
        return "".join(self.structure)


def split_structure(html: str) -> tuple[str, ...]:
    """Cuts the HTML of a structure into tokens; the opposite of joining them.

    Raises:
        ValueError: There is something that is no structure token; the message shows where.
    """
    tokens: list[str] = []
    place = 0
    for match in _TOKEN.finditer(html):
        if html[place : match.start()].strip():
            break
        tokens.append(_spelt(match[0]))
        place = match.end()
    rest = html[place:].strip()
    if rest:
        raise ValueError(f"{rest[:20]!r} is no part of a table's structure")
    return tuple(tokens)


def _spelt(token: str) -> str:
    """The one spelling of a token: spans with a leading space and double quotes."""
    span = _SPAN.fullmatch(token)
    return f' {span[1]}="{span[2]}"' if span else token


def normalise_tokens(tokens: Sequence[str]) -> tuple[str, ...]:
    """Brings tokens as people write them to one spelling; empty ones fall out, merged cells are taken apart."""
    spelt: list[str] = []
    for token in tokens:
        if token == MERGED_CELL:
            spelt += ["<td>", "</td>"]
        elif token:
            spelt.append(_spelt(token))
    return tuple(spelt)


def split_text(text: str) -> tuple[str, ...]:
    """Cuts a cell's content into characters and inline tags."""
    return tuple(_CONTENT_TOKEN.findall(text))


def merge_cells(structure: Sequence[str]) -> tuple[str, ...]:
    """Joins each `<td>` with the token after it, its `</td>`."""
    merged: list[str] = []
    tokens = iter(structure)
    for token in tokens:
        if token == "<td>":  # noqa: S105 - HTML, not a password
            next(tokens, None)
            token = MERGED_CELL  # noqa: PLW2901
        merged.append(token)
    return tuple(merged)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTable:
    """A table as targets of training.

    Attributes:
        structure: int64 (max_text_length + 2,): start, tokens, end, then 0.
        boxes: float32 (max_text_length + 2, numbers): the box of each token that begins a cell, in pixels; 0 elsewhere.
        box_masks: float32 (max_text_length + 2, 1): 1 where a box counts.
        length: Tokens without start and end.
        unknown: Tokens that the vocabulary lacks. They are left out of `structure`, so that it says something else than
            the label: such a table must not be trained on. (PaddleOCR does.)
    """

    structure: NDArray[np.int64]
    boxes: NDArray[np.float32]
    box_masks: NDArray[np.float32]
    length: int
    unknown: tuple[str, ...]


def encode(
    label: TableLabel,
    vocabulary: Vocabulary,
    *,
    max_text_length: int,
    box_numbers: int,
    learn_empty_boxes: bool = False,
) -> EncodedTable | None:
    """Turns a label into targets.

    Args:
        label: The table.
        vocabulary: What the model knows.
        max_text_length: Most tokens of a structure, as the model counts them.
        box_numbers: Numbers of a box, 4 or 8.
        learn_empty_boxes: Whether empty cells are to give the box (0, 0, 0, 0) instead of anything.

    Returns:
        The targets, or None if the structure is empty or longer than `max_text_length`.

    Raises:
        ValueError: A box has another number of coordinates, or there are fewer cells than the structure has.
    """
    tokens = merge_cells(label.structure) if vocabulary.merged else label.structure
    if not tokens or len(tokens) > max_text_length:
        return None
    numbers = vocabulary.numbers
    known = [numbers[token] for token in tokens if token in numbers]
    if not known:
        return None
    structure = np.zeros(max_text_length + 2, dtype=np.int64)
    structure[1 : len(known) + 1] = known
    structure[len(known) + 1] = vocabulary.end
    boxes = np.zeros((max_text_length + 2, box_numbers), dtype=np.float32)
    masks = np.zeros((max_text_length + 2, 1), dtype=np.float32)
    starts = [place for place, number in enumerate(known, start=1) if number in vocabulary.cell_classes]
    if len(starts) > len(label.cells):
        raise ValueError(f"the structure has {len(starts)} cells, {len(label.cells)} are given")
    for place, cell in zip(starts, label.cells, strict=False):
        if cell.box is not None and cell.tokens:
            if len(cell.box) != box_numbers:
                raise ValueError(f"a box has {len(cell.box)} numbers instead of {box_numbers}")
            boxes[place] = cell.box
            masks[place] = 1.0
        elif learn_empty_boxes:
            masks[place] = 1.0
    unknown = tuple(dict.fromkeys(token for token in tokens if token not in numbers))
    return EncodedTable(structure=structure, boxes=boxes, box_masks=masks, length=len(known), unknown=unknown)


class BoxFormat(StrEnum):
    """What the numbers of a box mean."""

    CORNERS2 = "xyxy"
    CENTRE = "xywh"
    CORNERS4 = "xyxyxyxy"


def encode_boxes(
    boxes: NDArray[np.float32], *, width: float, height: float, out: BoxFormat | None = None
) -> NDArray[np.float32]:
    """Brings boxes from pixels to parts of a frame.

    Args:
        boxes: float32 (N, 4) as left, top, right, bottom, or (N, 8) as corners.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.
        out: `BoxFormat.CENTRE` turns (N, 4) into centre, width and height; otherwise the meaning stays.

    Returns:
        float32 of the same shape.
    """
    result = boxes.astype(np.float32, copy=True)
    if out is BoxFormat.CENTRE:
        if boxes.shape[1] != 4:
            raise ValueError("only boxes of 4 numbers have a centre format")
        result[:, :2] = (boxes[:, :2] + boxes[:, 2:]) / 2
        result[:, 2:] = boxes[:, 2:] - boxes[:, :2]
    result[:, 0::2] /= width
    result[:, 1::2] /= height
    return result


def as_corners(box: Sequence[float], *, numbers: int) -> tuple[float, ...]:
    """A box of 4 or 8 numbers as one of `numbers` numbers; four corners become the rectangle around them.

    Raises:
        ValueError: It has neither 4 nor 8 numbers.
    """
    if len(box) not in {4, 8}:
        raise ValueError(f"a box has {len(box)} numbers instead of 4 or 8")
    if len(box) == numbers:
        return tuple(float(value) for value in box)
    left, top = min(box[0::2]), min(box[1::2])
    right, bottom = max(box[0::2]), max(box[1::2])
    if numbers == 4:
        return float(left), float(top), float(right), float(bottom)
    return tuple(float(value) for value in (left, top, right, top, right, bottom, left, bottom))
