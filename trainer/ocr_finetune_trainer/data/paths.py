"""Finds the pictures that label files name, also when they were named on another machine.

A path is looked for where its writer may have meant it: under the prefix rule, beside the list, in a folder above it,
as
it stands if it is absolute, with leading folders taken off, and last by its file name if just one file has it. The way
that worked is remembered, so a list of a million lines costs one look-up a line.
"""

from __future__ import annotations

import difflib
import posixpath
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ocr_finetune_trainer.data.files import FolderFiles
from ocr_finetune_trainer.data.records import Problem

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.files import Files, Member

__all__ = ["PrefixRule", "Resolver"]


@dataclass(frozen=True, slots=True)
class PrefixRule:
    """What paths begin with, and what stands there instead."""

    begins: str
    instead: str


class Resolver:
    """Finds pictures in one source.

    Attributes:
        ways: How many pictures were found in which way, for the report.
    """

    def __init__(self, files: Files, *, prefix: PrefixRule | None = None) -> None:
        self._files = files
        self._prefix = prefix
        self._strip = 0
        self.ways: Counter[str] = Counter()

    def find(self, written: str, *, base: str, place: str) -> Member | Problem:
        """Finds a picture.

        Args:
            written: The path as the label file has it.
            base: Folder of the label file in the source, empty for its root.
            place: Where the path stands, for the message.

        Returns:
            The file, or what is wrong.
        """
        path = written.strip().replace("\\", "/")
        if not path or "\0" in path:
            return Problem(kind="empty-path", place=place, what="names no picture", hint="write its path")
        if self._prefix is not None and path.startswith(self._prefix.begins.replace("\\", "/")):
            path = self._prefix.instead + path[len(self._prefix.begins) :]
            path = path.lstrip("/") if not self._prefix.instead.startswith("/") else path
        for way, candidate in self._candidates(path, base):
            member = self._files.find(candidate)
            if member is not None:
                self.ways[way] += 1
                return member
        return self._by_name(path, written, place)

    def _candidates(self, path: str, base: str) -> list[tuple[str, str]]:
        absolute = path.startswith("/") or path[1:3] == ":/"
        found: list[tuple[str, str]] = []
        if not absolute:
            folder = base
            outward = [folder]
            while folder:
                folder = posixpath.dirname(folder)
                outward.append(folder)
            if isinstance(self._files, FolderFiles):
                outward.append("..")
            found = [("as written", posixpath.normpath(posixpath.join(folder, path))) for folder in outward]
        elif isinstance(self._files, FolderFiles) and path.startswith("/"):
            found = [("absolute", path)]
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        strips = range(1, len(parts))
        if 0 < self._strip < len(parts):
            strips = [self._strip, *strips]  # type: ignore[assignment]
        for count in strips:
            found.append((f"without its first {count} folders", "/".join(parts[count:])))
        return found

    def _by_name(self, path: str, written: str, place: str) -> Member | Problem:
        same = self._files.by_file_name(path)
        if len(same) == 1:
            member = self._files.find(same[0])
            if member is not None:
                self.ways["by its file name"] += 1
                return member
        if same:
            shown = ", ".join(same[:3])
            return Problem(
                kind="ambiguous-picture", place=place, missing=True,
                what=f"there is no picture {written!r}, and {len(same)} others have its name ({shown})",
                hint="give dataset.…pathPrefix {from, to}, or correct the path",
            )  # fmt: skip
        return Problem(
            kind="missing-picture", place=place, what=f"there is no picture {written!r}", missing=True,
            hint=self._nearest(path),
        )  # fmt: skip

    def _nearest(self, path: str) -> str:
        folder = str(PurePosixPath(path).parent)
        names = self._files.names()
        if not names:
            return "the source holds no files at all"
        same_folder = [n for n in names if posixpath.dirname(n) == folder][:2000] or names[:2000]
        near = difflib.get_close_matches(path, same_folder, n=1, cutoff=0.75)
        return f"did you mean {near[0]!r}?" if near else "copy it there, or take the line out"
