"""What can be wrong with a labelled table, and the grid behind its tokens.

A structure is read as a browser would lay it out: cells take the first free place of their row, spans cover places of
the rows below. Whatever a model could not learn, or would learn wrongly, is said in one clause with its cell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocr_finetune_trainer.data.table_labels import Cell, TableLabel

__all__ = ["Grid", "GridCell", "LabelProblem", "StructureError", "problem_of", "read_grid"]

_SPAN = re.compile(r' (colspan|rowspan)="(\d+)"')
_SECTIONS = {"<thead>": "</thead>", "<tbody>": "</tbody>"}
# A browser's own limit for columns (https://html.spec.whatwg.org/multipage/tables.html).
_WIDEST = 1000


class StructureError(ValueError):
    """Tokens that are no table.

    Attributes:
        kind: What kind of problem, in kebab case.
        cell: The cell it is about, counted from 1; 0 if it is about no single cell.
    """

    def __init__(self, kind: str, what: str, *, cell: int = 0) -> None:
        super().__init__(what)
        self.kind = kind
        self.cell = cell


class LabelProblem(NamedTuple):
    """What is wrong with a label: its kind in kebab case, a clause, and the cell, from 1, if it is about one (else 0)."""

    kind: str
    what: str
    cell: int = 0


@dataclass(frozen=True, slots=True)
class GridCell:
    """Where a cell lies: its first row and column, and how many of each it covers."""

    row: int
    column: int
    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table as rows and columns.

    Attributes:
        rows: How many rows.
        columns: How many columns the widest row has.
        head_rows: How many rows stand in `<thead>`.
        cells: The cells in reading order.
        ragged: Whether rows differ in width.
    """

    rows: int
    columns: int
    head_rows: int
    cells: tuple[GridCell, ...]
    ragged: bool

    @property
    def spans(self) -> int:
        """How many cells cover more than one place."""
        return sum(cell.rows > 1 or cell.columns > 1 for cell in self.cells)


@dataclass(slots=True)
class _Reader:
    """Walks over the tokens; `section` and `row` are open where they aren't empty."""

    section: str = ""
    in_row: bool = False
    in_cell: bool = False
    row: int = 0
    first_row: int = 0
    head_rows: int = 0
    column: int = 0
    taken: dict[tuple[int, int], int] = field(default_factory=dict)
    cells: list[GridCell] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    last_spans: dict[int, bool] = field(default_factory=dict)

    def place(self, *, rows: int, columns: int) -> None:
        while (self.row, self.column) in self.taken:
            self.column += 1
        number = len(self.cells)
        for row in range(self.row, self.row + rows):
            for column in range(self.column, self.column + columns):
                if (row, column) in self.taken:
                    other = self.taken[row, column] + 1
                    raise StructureError(
                        "overlapping-spans",
                        f"cell {number + 1} covers a place that cell {other} covers too",
                        cell=number + 1,
                    )
                self.taken[row, column] = number
        self.cells.append(GridCell(self.row, self.column, rows, columns))
        self.last_spans[self.row] = columns > 1
        self.column += columns

    def end_row(self) -> None:
        width = max((column for row, column in self.taken if row == self.row), default=-1) + 1
        self.widths.append(width)
        self.row += 1
        self.column = 0
        self.in_row = False

    def end_section(self) -> None:
        over = [number for number, cell in enumerate(self.cells) if cell.row + cell.rows > self.row >= cell.row + 1]
        if over:
            cell = self.cells[over[0]]
            raise StructureError(
                "span-over-edge",
                f"cell {over[0] + 1} spans {cell.rows} rows, {self.row - cell.row} are left in its section",
                cell=over[0] + 1,
            )
        if self.section == "<thead>":
            self.head_rows += self.row - self.first_row
        self.first_row = self.row


def read_grid(structure: Sequence[str]) -> Grid:
    """Lays a table out.

    Args:
        structure: Tokens, cells not merged, spans spelt ` colspan="2"`.

    Raises:
        StructureError: The tokens are unbalanced, out of place or none; a span leads over the table's edge or overlaps.
    """
    reader = _Reader()
    tokens = list(structure)
    place = 0
    while place < len(tokens):
        place = _step(reader, tokens, place)
    if reader.in_row or reader.section:
        raise StructureError("unbalanced-structure", f"ends within {'a row' if reader.in_row else reader.section}")
    reader.end_section()
    if not reader.cells:
        raise StructureError("empty-structure", "has no cell")
    _check_width(reader)
    return Grid(
        rows=reader.row,
        columns=max(reader.widths),
        head_rows=reader.head_rows,
        cells=tuple(reader.cells),
        ragged=len(set(reader.widths)) > 1,
    )


def _step(reader: _Reader, tokens: Sequence[str], place: int) -> int:
    """Reads one token, or the several of one cell; gives where the next one stands."""
    token = tokens[place]
    if token in _SECTIONS and not reader.section and not reader.in_row:
        reader.end_section()
        reader.section = token
    elif reader.section and token == _SECTIONS[reader.section] and not reader.in_row:
        reader.end_section()
        reader.section = ""
    elif token == "<tr>" and not reader.in_row:  # noqa: S105 - HTML, not a password
        reader.in_row = True
    elif token == "</tr>" and reader.in_row:  # noqa: S105
        reader.end_row()
    elif token in {"<td>", "<td"} and reader.in_row:
        return _cell(reader, tokens, place)
    else:
        raise StructureError("unbalanced-structure", f"token {place + 1}, {token!r}, has no place there")
    return place + 1


def _cell(reader: _Reader, tokens: Sequence[str], start: int) -> int:
    spans = {"rowspan": 1, "colspan": 1}
    place = start + 1
    if tokens[start] == "<td":
        while place < len(tokens) and (match := _SPAN.fullmatch(tokens[place])):
            spans[match[1]] = int(match[2])
            place += 1
        if place == len(tokens) or tokens[place] != ">":
            raise StructureError("unbalanced-structure", f"token {start + 1}, '<td', is never closed by '>'")
        place += 1
    if place == len(tokens) or tokens[place] != "</td>":
        raise StructureError(
            "unbalanced-structure", f"token {start + 1}, {tokens[start]!r}, is not followed by '</td>'"
        )
    number = len(reader.cells) + 1
    for name, span in spans.items():
        if not 1 <= span <= _WIDEST:
            raise StructureError("span-over-edge", f"cell {number} has {name} {span}", cell=number)
    reader.place(rows=spans["rowspan"], columns=spans["colspan"])
    return place + 1


def _check_width(reader: _Reader) -> None:
    """A row that is wider than all others only because its last cell spans columns leads over the edge."""
    if len(reader.widths) < 2:
        return
    for row, width in enumerate(reader.widths):
        others = max(reader.widths[:row] + reader.widths[row + 1 :])
        if width > others and reader.last_spans.get(row):
            number = max(index for index, cell in enumerate(reader.cells) if cell.row == row) + 1
            raise StructureError(
                "span-over-edge",
                f"cell {number} makes row {row + 1} {width} columns wide, the others have {others}",
                cell=number,
            )


def problem_of(label: TableLabel) -> LabelProblem | None:
    """The first thing that is wrong with a label, whatever model is to learn it.

    Args:
        label: The table.

    Returns:
        The problem; None for a good label. A table without any box is good: its structure can be learnt, its boxes are
        not.
    """
    try:
        grid = read_grid(label.structure)
    except StructureError as error:
        return LabelProblem(error.kind, str(error), error.cell)
    difference = len(label.cells) - len(grid.cells)
    if difference:
        kind = "boxes-without-cells" if difference > 0 else "cells-without-content"
        return LabelProblem(kind, f"the structure has {len(grid.cells)} cells, {len(label.cells)} are described")
    boxed = any(cell.box is not None for cell in label.cells)
    for number, cell in enumerate(label.cells, start=1):
        wrong = _wrong_box(cell, number, boxed=boxed)
        if wrong is not None:
            return wrong
    return None


def _wrong_box(cell: Cell, number: int, *, boxed: bool) -> LabelProblem | None:
    """What is wrong with the box of a cell; `boxed` is whether any cell of its table has one."""
    if cell.box is None:
        if cell.tokens and boxed:
            return LabelProblem("cell-without-box", f"cell {number} has text but no box, others have one", number)
        return None
    if len(cell.box) not in {4, 8}:
        return LabelProblem(
            "bad-box", f"the box of cell {number} has {len(cell.box)} numbers instead of 4 or 8", number
        )
    xs, ys = cell.box[0::2], cell.box[1::2]
    if min(xs) >= max(xs) or min(ys) >= max(ys):
        return LabelProblem("flat-box", f"the box of cell {number} has no area", number)
    if len(cell.box) == 4 and (xs[0] > xs[1] or ys[0] > ys[1]):
        return LabelProblem(
            "bad-box",
            f"the box of cell {number} ends before it begins; it must be left, top, right, bottom",
            number,
        )
    return None
