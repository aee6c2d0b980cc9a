"""ICDAR 2015: a text file a picture, `gt_<picture>.txt`, with eight coordinates and the text a line.

The files begin with a byte-order mark, and the text may hold commas. The word task has one `gt.txt` with lines such as
`word_1.png, "Genaxis Theatre"`. `###` marks what nobody can read.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.formats.ppocr import IGNORED_TEXTS, split_of
from ocr_finetune_trainer.data.records import Box, Problem, Record

__all__ = ["LAYOUT"]

_PAGE = re.compile(r"^gt_(.+)\.txt$", re.IGNORECASE)
_COORDINATES = re.compile(r"^\s*-?\d+(?:\.\d+)?(?:\s*,\s*-?\d+(?:\.\d+)?){7}\s*,")
_WORD = re.compile(r'^\s*(?P<path>[^,]+\.\w+)\s*,\s*(?P<quote>"?)(?P<text>.*?)(?P=quote)\s*$')


class _Icdar2015:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """`gt_*.txt` files with coordinates, or a `gt.txt` of words."""
        pages = _pages(request)
        for name in pages[:3]:
            if any(_COORDINATES.match(line) for line in _lines(request, name)):
                return f"{len(pages)} files such as {posixpath.basename(name)} with eight coordinates a line"
        for name in _word_lists(request):
            if any(_WORD.match(line) and "\t" not in line for line in _lines(request, name)[:5]):
                return f"{name} has a picture and a word in quotes a line"
        return ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """Pages, or words where there are no pages and lines are wanted."""
        pages = [request.list_file] if _PAGE.match(posixpath.basename(request.list_file)) else _pages(request)
        words = _word_lists(request)
        if pages and (request.kind is not Kind.RECOGNITION or not words):
            for name in pages:
                yield from _page(request, name)
            return
        for name in words:
            yield from _words(request, name)
        if not pages and not words:
            yield Problem(
                kind="no-list",
                place=request.files.label,
                what="holds neither gt_<picture>.txt nor gt.txt",
                hint="give the folder above the pictures and their text files",
                fatal=True,
                missing=True,
                samples=0,
            )


def _pages(request: Request) -> list[str]:
    return [name for name in request.files.others() if _PAGE.match(posixpath.basename(name))]


def _word_lists(request: Request) -> list[str]:
    names = request.files.others()
    return [name for name in names if posixpath.basename(name).lower() in ("gt.txt", "coords_gt.txt")]


def _lines(request: Request, name: str) -> list[str]:
    try:
        return request.files.read_text(name).splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _page(request: Request, name: str) -> Iterator[Record | Problem]:
    match = _PAGE.match(posixpath.basename(name))
    stem = match.group(1) if match else ""
    place = request.files.place(name)
    try:
        text = request.files.read_text(name)
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(kind="unreadable-list", place=place, what=f"can't be read ({error})", hint="save it as UTF-8")
        return
    boxes: list[Box] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        box = _box(line)
        if isinstance(box, str):
            yield Problem(
                kind="bad-box",
                place=request.files.place(name, number),
                what=box,
                hint="write x1,y1,x2,y2,x3,y3,x4,y4,text",
            )
            return
        boxes.append(box)
    picture = _picture(request, name, stem)
    member = request.files.find(picture) if picture else None
    if member is None:
        yield Problem(
            kind="missing-picture",
            place=place,
            what=f"there is no picture named {stem!r}",
            hint="copy it into the source, or take this file out",
            missing=True,
        )
        return
    yield Record(member=member, place=place, boxes=tuple(boxes), split=split_of(folder_of(name)))


def _picture(request: Request, name: str, stem: str) -> str:
    found: list[str] = []
    for suffix in (".jpg", ".png", ".jpeg", ".bmp", ".gif", ".tif"):
        found += request.files.by_file_name(f"{stem}{suffix}")
    if len(found) > 1:
        # Training and test pictures often have equal names: the one whose folder is most alike is meant.
        split = split_of(folder_of(name))
        found = [candidate for candidate in found if split_of(folder_of(candidate)) == split] or found
    return found[0] if found else ""


def _box(line: str) -> Box | str:
    cells = line.split(",", 8)
    try:
        values = [float(cell) for cell in cells[:8]]
    except ValueError:
        return f"has coordinates that are no numbers: {line[:60]!r}"
    if len(values) < 8:
        return f"has {len(values)} coordinates instead of 8: {line[:60]!r}"
    text = cells[8] if len(cells) > 8 else ""
    points = tuple(zip(values[0::2], values[1::2], strict=True))
    return Box(points=points, text=text, ignored=text.strip() in IGNORED_TEXTS)


def _words(request: Request, name: str) -> Iterator[Record | Problem]:
    for number, line in enumerate(_lines(request, name), start=1):
        if not line.strip():
            continue
        place = request.files.place(name, number)
        match = _WORD.match(line)
        if match is None:
            yield Problem(
                kind="no-comma", place=place, what=f"is no picture and word: {line[:60]!r}", hint='write a.png, "word"'
            )
            continue
        member = request.resolver.find(match["path"], base=folder_of(name), place=place)
        if isinstance(member, Problem):
            yield member
            continue
        yield Record(member=member, place=place, text=match["text"], split=split_of(folder_of(name)))


LAYOUT = _Icdar2015()
