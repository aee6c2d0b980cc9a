r"""PaddleOCR's label lists: a picture and its label a line, with a tab between them.

Lines: `<path>\t<text>`; the path may be a JSON array of several pictures of the same text. Pages:
`<path>\t[{"transcription":
"…", "points": [[x, y], …], "difficult": false}, …]`, where some write `point` for `points`. Texts `###` and `*` and
difficult ones are ignored regions.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.records import Box, Problem, Record

__all__ = ["IGNORED_TEXTS", "LAYOUT", "boxes_of", "page_group", "read_list", "split_of"]

IGNORED_TEXTS = frozenset({"###", "*"})
_SUFFIX = re.compile(r"\.(?:jpe?g|png|bmp|webp|tiff?|gif|jp2)(?=\s)", re.IGNORECASE)
_CROP = re.compile(r"(.+)_crop_\d+$")
_SPLIT_WORDS = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
                "validation": "validation", "eval": "validation", "dev": "validation", "test": "test"}  # fmt: skip


class _PpOcr:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """A text file whose first lines are a picture, a tab and a label."""
        found = _lists(request)
        if not found:
            return ""
        shown = ", ".join(found[:3])
        what = "pages with boxes" if _is_pages(request, found[0]) else "lines of text"
        return f"{shown}: a picture, a tab and a label a line ({what})"

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All lines of all lists."""
        lists = _lists(request)
        if not lists:
            yield Problem(
                kind="no-list", place=request.files.label, fatal=True, missing=True, samples=0,
                what="holds no label list (<picture><tab><label> a line)",
                hint="give the list in dataset.train[].listFile",
            )  # fmt: skip
            return
        several = len(lists) > 1
        for name in lists:
            yield from read_list(request, name, split=split_of(name) if several else "")


@lru_cache(maxsize=4096)
def split_of(name: str) -> str:
    """The split that a list's or folder's name speaks of, empty if none: `rec_gt_test.txt` is `test`."""
    for word in re.split(r"[^a-z]+", posixpath.basename(name).lower()):
        if word in _SPLIT_WORDS:
            return _SPLIT_WORDS[word]
    return ""


def page_group(name: str) -> str:
    """The page that a crop of PPOCRLabel's was cut from; empty for other names."""
    match = _CROP.match(posixpath.splitext(posixpath.basename(name))[0])
    return match.group(1) if match else ""


def _lists(request: Request) -> list[str]:
    if request.list_file:
        return [request.list_file]
    candidates = [n for n in request.files.others() if n.lower().endswith(".txt") and n.count("/") <= 2]
    found = [name for name in candidates[:200] if _looks_like_list(request, name)]
    pages = [name for name in found if _is_pages(request, name)]
    lines = [name for name in found if name not in pages]
    if request.kind is Kind.DETECTION:
        return pages or lines
    return lines or pages


def _head(request: Request, name: str) -> list[str]:
    try:
        text = request.files.read_text(name)
    except (OSError, UnicodeDecodeError):
        return []
    return [line for line in text[:200_000].splitlines()[:20] if line.strip()]


def _looks_like_list(request: Request, name: str) -> bool:
    head = _head(request, name)
    good = [line for line in head if _cut(line) is not None]
    return bool(good) and len(good) * 2 >= len(head)


def _is_pages(request: Request, name: str) -> bool:
    labels = [cut[1] for line in _head(request, name) if (cut := _cut(line)) is not None]
    return bool(labels) and all(_is_page_label(label) for label in labels[:3])


def _is_page_label(label: str) -> bool:
    return label.lstrip().startswith("[{") or label.strip() == "[]"


def _cut(line: str) -> tuple[str, str] | None:
    """Path and label of a line; spaces are taken for a tab only behind a picture's suffix."""
    path, tab, label = line.partition("\t")
    if tab:
        return path, label
    match = _SUFFIX.search(line)
    if match:
        return line[: match.end()], line[match.end() + 1 :]
    return None


def read_list(request: Request, name: str, *, split: str = "") -> Iterator[Record | Problem]:
    """Reads one list."""
    try:
        text = request.files.read_text(name)
    except FileNotFoundError:
        near = [n for n in request.files.others() if n.lower().endswith(".txt")][:5]
        yield Problem(kind="missing-list", place=request.files.place(name), what="there is no such list", fatal=True,
                      missing=True, samples=0, hint=f"lists there are: {', '.join(near) or 'none'}")  # fmt: skip
        return
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(kind="unreadable-list", place=request.files.place(name), what=f"can't be read ({error})",
                      hint="save it as UTF-8", fatal=True, samples=0)  # fmt: skip
        return
    base = folder_of(name)
    anything = False
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")  # noqa: PLW2901 - lists of Windows programs
        if not line.strip():
            continue
        anything = True
        yield from _read_line(request, line, base=base, place=request.files.place(name, number), split=split)
    if not anything:
        yield Problem(kind="empty-list", place=request.files.place(name), what="is empty", fatal=True, samples=0,
                      hint="write <picture><tab><label>, one a line")  # fmt: skip


def _read_line(request: Request, line: str, *, base: str, place: str, split: str) -> Iterator[Record | Problem]:
    cut = _cut(line)
    if cut is None:
        yield Problem(kind="no-tab", place=place, what=f"has no tab between picture and label: {line[:60]!r}",
                      hint="write <picture><tab><label>")  # fmt: skip
        return
    path, label = cut
    boxes: tuple[Box, ...] | None = None
    if _is_page_label(label):
        parsed = _page(label, place)
        if isinstance(parsed, Problem):
            yield parsed
            return
        boxes = parsed
    elif request.kind is Kind.DETECTION:
        yield Problem(kind="not-a-page", place=place, what=f"has a text instead of boxes: {label[:40]!r}",
                      hint='write [{"transcription": "…", "points": [[x, y], …]}, …]')  # fmt: skip
        return
    several = _several(path)
    for one in several:
        member = request.resolver.find(one, base=base, place=place)
        if isinstance(member, Problem):
            yield member
            continue
        group = page_group(member.name)
        if len(several) > 1:
            group = group or several[0]
        yield Record(member=member, place=place, text="" if boxes is not None else label, boxes=boxes, group=group,
                     split=split)  # fmt: skip


def _several(path: str) -> Sequence[str]:
    if not path.startswith("["):
        return [path]
    try:
        values = json.loads(path)
    except json.JSONDecodeError:
        return [path]
    return [str(value) for value in values] if isinstance(values, list) and values else [path]


def _page(label: str, place: str) -> tuple[Box, ...] | Problem:
    try:
        values = json.loads(label)
    except json.JSONDecodeError as error:
        return Problem(kind="broken-json", place=place, what=f"its boxes are no JSON ({error.msg})",
                       hint=f"look at column {error.colno} of the label")  # fmt: skip
    return boxes_of(values, place)


def boxes_of(values: Any, place: str) -> tuple[Box, ...] | Problem:
    """Turns PaddleOCR's JSON of a page into boxes; one bad box spoils its page, and is named."""
    if not isinstance(values, list):
        return Problem(kind="broken-json", place=place, what="its boxes are no list", hint="write [{…}, …]")
    boxes = []
    for number, value in enumerate(values, start=1):
        box = _box(value, f"box {number}", place)
        if isinstance(box, Problem):
            return box
        boxes.append(box)
    return tuple(boxes)


def _box(value: Any, which: str, place: str) -> Box | Problem:
    if not isinstance(value, dict):
        return Problem(kind="bad-box", place=place, what=f"{which} is no object", hint="write {…}")
    points = value.get("points", value.get("point"))
    text = value.get("transcription", value.get("label", ""))
    try:
        corners = tuple((float(x), float(y)) for x, y in points or ())
    except (TypeError, ValueError):
        return Problem(kind="bad-box", place=place, what=f"{which} has no corners that can be read: {points!r:.80}",
                       hint='write "points": [[x, y], [x, y], [x, y], [x, y]]')  # fmt: skip
    if len(corners) < 3:
        return Problem(kind="bad-box", place=place, what=f"{which} has {len(corners)} corners", hint="draw it again")
    text = text if isinstance(text, str) else str(text)
    ignored = bool(value.get("difficult", False)) or text in IGNORED_TEXTS
    return Box(points=corners, text=text, ignored=ignored)


LAYOUT = _PpOcr()
