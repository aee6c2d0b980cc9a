"""LMDB databases as files: each `image-…` key of a database is one of them."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import lmdb

from ocr_finetune_api.exit_codes import DataError
from ocr_finetune_trainer.data.files import Files, Member

__all__ = ["COUNT", "LmdbFiles", "databases_below"]

COUNT = "num-samples"
_FILE = "data.mdb"


def databases_below(root: Path) -> list[str]:
    """Folders of a source that hold a database, relative to it; `.` is the source itself."""
    found = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        if _FILE in names:
            found.append(os.path.relpath(folder, root).replace(os.sep, "/"))
    return found


class LmdbFiles(Files):
    """The databases of a source, opened for reading without a lock, so that read-only volumes serve too.

    Attributes:
        databases: Folders that hold a database.
    """

    def __init__(self, root: Path, databases: list[str]) -> None:
        super().__init__(str(root))
        self.root = root
        self.databases = databases
        self._open: dict[str, lmdb.Environment] = {}

    def __getstate__(self) -> dict[str, Any]:
        nothing = dict.fromkeys(("_by_name", "_kinds"))
        return {"label": self.label, "root": self.root, "databases": self.databases, "_open": {}, **nothing}

    def _environment(self, database: str) -> lmdb.Environment:
        if database not in self._open:
            path = self.root / database
            try:
                self._open[database] = lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_readers=1)
            except lmdb.Error as error:
                raise DataError(f"{path / _FILE}: is no LMDB that can be read ({error})") from error
        return self._open[database]

    def value(self, database: str, key: str) -> bytes | None:
        """A value by its key, or None."""
        try:
            with self._environment(database).begin() as transaction:
                found = transaction.get(key.encode())
        except lmdb.Error as error:
            raise DataError(f"{self.root / database / _FILE}: {key}: can't be read ({error})") from error
        return None if found is None else bytes(found)

    def names(self) -> list[str]:
        """All pictures' keys, behind the folder of their database."""
        found = []
        for database in self.databases:
            with self._environment(database).begin() as transaction, transaction.cursor() as cursor:
                if cursor.set_range(b"image-"):
                    for key in cursor.iternext(keys=True, values=False):
                        if not key.startswith(b"image-"):
                            break
                        found.append(f"{database}/{key.decode()}")
        return found

    def count(self, list_file: str = "") -> int:  # noqa: ARG002 - a database has no lists
        """How many samples the databases say they have."""
        counts = (self.value(database, COUNT) or b"0" for database in self.databases)
        return sum(int(count) for count in counts if count.isdigit())

    def find(self, name: str) -> Member | None:
        """The picture of this key."""
        database, _, key = name.rpartition("/")
        content = self.value(database, key) if database in self.databases else None
        return None if content is None else Member(name, len(content), zlib.crc32(content))

    def read(self, member: Member) -> bytes:
        """The bytes of a picture."""
        database, _, key = member.name.rpartition("/")
        content = self.value(database, key)
        if content is None:
            raise FileNotFoundError(member.name)
        return content
