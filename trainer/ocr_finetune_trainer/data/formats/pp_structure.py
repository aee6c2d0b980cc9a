"""Folders of pictures with an HTML file of the same name beside each: what PP-Structure and people write by hand.

A cell may say where its text lies: `<td bbox="left top right bottom">` or eight numbers of four corners, also as
`data-bbox`. Without any, the structure alone is learnt. HTML that a browser would have to repair is refused with its
line: what the writer meant can't be known.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from html.parser import HTMLParser

from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.formats.ppocr import split_of
from ocr_finetune_trainer.data.formats.pubtabnet import records_of
from ocr_finetune_trainer.data.records import Problem, Record
from ocr_finetune_trainer.data.table_labels import Cell, TableLabel, split_text

__all__ = ["LAYOUT", "HtmlError", "parse_table"]

_SUFFIXES = (".html", ".htm")
_WRAPPERS = frozenset({"html", "body", "head", "meta", "title", "div", "style", "colgroup", "col", "caption"})
_VOID = frozenset({"br", "img", "hr", "meta", "col", "wbr"})
_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?")


class HtmlError(ValueError):
    """HTML that is no plain table.

    Attributes:
        line: The line, counted from 1.
    """

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


class _TableParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.structure: list[str] = []
        self.cells: list[Cell] = []
        self.open: list[tuple[str, int]] = []
        self.tables = 0
        self.lines: list[int] = []  # of the table and of each cell
        self._content: list[str] | None = None
        self._box: tuple[float, ...] | None = None

    @property
    def line(self) -> int:
        return self.getpos()[0]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._content is not None:
            self._start_in_cell(tag)
            return
        if tag in _VOID:
            return
        self.open.append((tag, self.line))
        if tag in {"td", "th"}:
            self._start_cell(dict(attrs))
        elif tag in {"thead", "tbody", "tr"}:
            self.structure.append(f"<{tag}>")
        elif tag == "table":
            self.tables += 1
            self.lines.append(self.line)
            if self.tables > 1:
                raise HtmlError("there is more than one table", self.line)
        elif tag not in _WRAPPERS:
            raise HtmlError(f"<{tag}> stands outside a cell", self.line)

    def _start_in_cell(self, tag: str) -> None:
        if tag in {"table", "tr", "td", "th", "thead", "tbody"}:
            opened = next(line for name, line in reversed(self.open) if name in {"td", "th"})
            raise HtmlError(f"<{tag}> stands in the cell that begins in line {opened}", self.line)
        if self._content is not None:
            self._content.append(f"<{tag}>")
        if tag not in _VOID:
            self.open.append((tag, self.line))

    def _start_cell(self, attributes: dict[str, str | None]) -> None:
        spans = []
        for name in ("rowspan", "colspan"):
            value = attributes.get(name) or "1"
            if not value.strip().isdecimal():
                raise HtmlError(f"{name} is {value!r} instead of a number", self.line)
            if int(value) != 1:
                spans.append(f' {name}="{int(value)}"')
        self.structure += ["<td", *spans, ">"] if spans else ["<td>"]
        written = attributes.get("bbox") or attributes.get("data-bbox") or ""
        self._box = tuple(float(number) for number in _NUMBERS.findall(written)) or None
        self._content = []
        self.lines.append(self.line)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        if not self.open or self.open[-1][0] != tag:
            meant = f"; <{self.open[-1][0]}> of line {self.open[-1][1]} is open" if self.open else ""
            raise HtmlError(f"</{tag}> closes what isn't open{meant}", self.line)
        self.open.pop()
        if tag in {"td", "th"}:
            text = "".join(self._content or ()).strip()
            self.structure.append("</td>")
            self.cells.append(Cell(split_text(text), self._box if text else None))
            self._content = None
        elif self._content is not None:
            self._content.append(f"</{tag}>")
        elif tag in {"thead", "tbody", "tr"}:
            self.structure.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._content is not None:
            self._content.append(" ".join(data.split()) if data.isspace() else re.sub(r"\s+", " ", data))
        elif data.strip() and not any(tag in {"title", "style", "caption"} for tag, _ in self.open):
            raise HtmlError(f"text stands outside a cell: {data.strip()[:40]!r}", self.line)


def parse_table(html: str) -> tuple[TableLabel, tuple[int, ...]]:
    """Reads one HTML table.

    Args:
        html: A table, alone or in a page of nothing else. Header cells count as cells.

    Returns:
        The label, with boxes where cells say theirs; and the lines, from 1, of the table and then of each cell.

    Raises:
        HtmlError: It is not balanced, holds something else, or no table.
    """
    parser = _TableParser()
    parser.feed(html)
    parser.close()
    if parser.open:
        tag, line = parser.open[-1]
        raise HtmlError(f"<{tag}> is never closed", line)
    if not parser.tables:
        raise HtmlError("there is no <table>", 1)
    return TableLabel(tuple(parser.structure), tuple(parser.cells)), tuple(parser.lines)


class _PPStructure:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """Pictures with an HTML file of the same name beside them."""
        stems = _pictures(request)
        pairs = sum(posixpath.splitext(name)[0] in stems for name in _pages(request))
        return f"{pairs} HTML files, each beside a picture of its name" if pairs else ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All HTML files."""
        pages = _pages(request)
        if not pages:
            yield Problem(kind="no-list", place=request.files.label, fatal=True, missing=True, samples=0,
                          what="holds no HTML files", hint="write one beside each picture")  # fmt: skip
        stems = _pictures(request)
        for name in pages:
            yield from _read(request, name, stems.get(posixpath.splitext(name)[0], ""))


def _pages(request: Request) -> list[str]:
    return [name for name in request.files.others() if name.lower().endswith(_SUFFIXES)]


def _pictures(request: Request) -> dict[str, str]:
    """All pictures by their path without its suffix."""
    return {posixpath.splitext(picture)[0]: picture for picture in request.files.pictures()}


def _read(request: Request, name: str, picture: str) -> Iterator[Record | Problem]:
    place = request.files.place(name)
    try:
        label, lines = parse_table(request.files.read_text(name))
    except HtmlError as error:
        yield Problem(kind="broken-html", place=request.files.place(name, error.line), what=str(error),
                      hint="correct the file")  # fmt: skip
        return
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(kind="unreadable-list", place=place, what=f"can't be read ({error})", hint="save it as UTF-8")
        return
    if not picture:
        yield Problem(kind="missing-picture", place=place, what="has no picture of its name beside it", missing=True,
                      hint="copy it there, or remove the file")  # fmt: skip
        return
    yield from records_of(
        request,
        label,
        picture,
        base="",
        place=place,
        split=split_of(folder_of(name)),
        place_of=lambda cell: request.files.place(name, lines[cell]),
    )


LAYOUT = _PPStructure()
