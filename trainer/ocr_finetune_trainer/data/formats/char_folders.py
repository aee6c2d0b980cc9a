"""Single characters: a folder of pictures an id, a table of samples, and a table from ids to characters.

`<id>/<character>_<n>.png`, `samples.csv` (a row a picture: path, character, id, under varying names) and `id2char.json`
(`{"5378": "紙"}`). Either table may be missing: without `samples.csv` the folders are walked, without the other the
characters come from the CSV or the file names.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.formats.tables import read_csv
from ocr_finetune_trainer.data.records import Problem, Record

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.formats.tables import Row

__all__ = ["LAYOUT"]

_IDS = "id2char.json"


class _Ids:
    """The table from ids to characters, and which ids had a picture."""

    def __init__(self, characters: Mapping[str, str], place: str) -> None:
        self._characters = characters
        self._place = place
        self._seen: set[str] = set()
        self._unknown: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._characters)

    def character(self, number: str) -> str | None:
        self._seen.add(number)
        found = self._characters.get(number)
        if found is None and number.isdecimal():
            found = self._characters.get(str(int(number)))
            self._seen.add(str(int(number)))
        return found

    def unknown(self, number: str, place: str) -> Problem:
        return Problem(
            kind="unknown-id", place=place, what=f"the id {number!r} is not in {self._place}",
            hint=f'add "{number}": "<character>" to it',
        )  # fmt: skip

    def empty_classes(self) -> Iterator[Problem]:
        for number, character in self._characters.items():
            if number not in self._seen:
                yield Problem(
                    kind="empty-class", place=self._place, samples=0,
                    what=f"the class {number} ({character!r}) has no picture",
                    hint="add pictures of it, or take it out",
                )  # fmt: skip


class _CharFolders:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """A table of ids, or folders whose names are numbers."""
        names = request.files.others()
        ids = [name for name in names if posixpath.basename(name) == _IDS]
        if ids:
            return f"{ids[0]} maps ids to characters"
        table = _samples(names)
        folders = {folder_of(name) for name in request.files.pictures()} if table else set()
        numbered = {folder for folder in folders if posixpath.basename(folder).isdecimal()}
        if numbered:
            return f"{table} and {len(numbered)} folders named by numbers"
        return ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All pictures with their characters."""
        names = request.files.others()
        ids, problems = _read_ids(request, names)
        yield from problems
        if any(problem.fatal for problem in problems):
            return
        table = request.list_file or _samples(names)
        if table:
            yield from _from_table(request, table, ids)
        else:
            yield from _from_folders(request, ids)
        yield from ids.empty_classes()


def _samples(names: list[str]) -> str:
    tables = [name for name in names if name.lower().endswith((".csv", ".tsv"))]
    preferred = [name for name in tables if posixpath.basename(name).lower() == "samples.csv"]
    return (preferred or tables or [""])[0]


def _read_ids(request: Request, names: list[str]) -> tuple[_Ids, list[Problem]]:
    name = next((n for n in names if posixpath.basename(n) == _IDS), "")
    if not name:
        return _Ids({}, _IDS), []
    place = request.files.place(name)
    try:
        values = json.loads(request.files.read_text(name))
    except json.JSONDecodeError as error:
        return _Ids({}, place), [
            Problem(kind="broken-json", place=f"{place}:{error.lineno}", what=f"is no JSON ({error.msg})",
                    hint=f"look at column {error.colno}", fatal=True, samples=0)
        ]  # fmt: skip
    except (OSError, UnicodeDecodeError) as error:
        return _Ids({}, place), [
            Problem(kind="unreadable-list", place=place, what=f"can't be read ({error})", fatal=True, samples=0)
        ]
    if not isinstance(values, dict):
        return _Ids({}, place), [
            Problem(kind="broken-json", place=place, what=f"holds a {type(values).__name__} instead of an object",
                    hint='write {"5378": "紙", …}', fatal=True, samples=0)
        ]  # fmt: skip
    problems = [
        Problem(kind="empty-label", place=place, what=f"the id {number!r} maps to {text!r}", hint="write a character",
                samples=0)
        for number, text in values.items()
        if not isinstance(text, str) or not text.strip()
    ]  # fmt: skip
    good = {str(number): text for number, text in values.items() if isinstance(text, str) and text.strip()}
    return _Ids(good, place), problems


def _from_table(request: Request, table: str, ids: _Ids) -> Iterator[Record | Problem]:
    base = folder_of(table)
    columns: set[str] = set()
    place = request.files.place(table)
    for row in read_csv(request.files, table, request.columns.model_dump()):
        if isinstance(row, Problem):
            yield row
            continue
        if row.line == 1:
            columns = set(row.cells)
            lacking = _lacking(columns, ids)
            if lacking:
                yield Problem(
                    kind="csv-header", place=f"{place}:1", fatal=True, samples=0,
                    what=f"has no column for {lacking}; the header is "
                    + (", ".join(repr(cell) for cell in row.cells.values()) or "not recognised"),
                    hint="name the columns path, character and id, or say in dataset.train[].columns which they are",
                )  # fmt: skip
                return
            continue
        yield _from_row(request, row, ids, base=base, place=request.files.place(table, row.line))


def _lacking(columns: set[str], ids: _Ids) -> str:
    if "path" not in columns:
        return "the picture's path"
    if "text" not in columns and not ("id" in columns and ids):
        return "the character (nor an id together with id2char.json)"
    return ""


def _from_row(request: Request, row: Row, ids: _Ids, *, base: str, place: str) -> Record | Problem:
    text = row.cells.get("text", "").strip()
    number = row.cells.get("id", "").strip()
    if number and ids:
        meant = ids.character(number)
        if meant is None:
            return ids.unknown(number, place)
        if text and text != meant:
            return Problem(
                kind="contradicting-label", place=place, what=f"says {text!r}, but id {number} is {meant!r}",
                hint="correct one of the two",
            )  # fmt: skip
        text = meant
    member = request.resolver.find(row.cells["path"], base=base, place=place)
    if isinstance(member, Problem):
        return member
    if not text:
        return Problem(kind="empty-label", place=place, what="has no character", hint="write it, or remove the row")
    return Record(member=member, place=place, text=text, group=row.cells.get("group", ""))


def _from_folders(request: Request, ids: _Ids) -> Iterator[Record | Problem]:
    for name in request.files.pictures():
        number = posixpath.basename(folder_of(name))
        place = request.files.place(name)
        member = request.files.find(name)
        if member is None:
            continue
        if ids:
            text = ids.character(number)
            if text is None:
                yield ids.unknown(number, place)
                continue
        else:
            stem = PurePosixPath(name).stem
            text = stem.rsplit("_", 1)[0] if "_" in stem else ""
            if not text:
                yield Problem(
                    kind="empty-label", place=place, what="no character can be read from its name",
                    hint="name it <character>_<number>, or add id2char.json",
                )  # fmt: skip
                continue
        yield Record(member=member, place=place, text=text)


LAYOUT = _CharFolders()
