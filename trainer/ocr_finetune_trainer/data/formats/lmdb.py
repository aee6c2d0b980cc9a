"""PaddleOCR's LMDB: `num-samples`, and for each number `image-000000001` and `label-000000001`."""

from __future__ import annotations

from collections.abc import Iterator

from ocr_finetune_trainer.data.formats import Request
from ocr_finetune_trainer.data.lmdb_files import COUNT, LmdbFiles
from ocr_finetune_trainer.data.records import Problem, Record

__all__ = ["LAYOUT"]


class _Lmdb:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """A `data.mdb`."""
        return f"{request.files.databases[0]} is an LMDB" if isinstance(request.files, LmdbFiles) else ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All samples of all databases of the source."""
        files = request.files
        if not isinstance(files, LmdbFiles):
            yield Problem(
                kind="no-list",
                place=files.label,
                what="holds no data.mdb",
                hint="give the folder of the database",
                fatal=True,
                missing=True,
                samples=0,
            )
            return
        for database in files.databases:
            yield from _read(files, database)


def _read(files: LmdbFiles, database: str) -> Iterator[Record | Problem]:
    count = files.value(database, COUNT)
    if count is None or not count.isdigit():
        yield Problem(
            kind="broken-lmdb",
            place=f"{database}: {COUNT}",
            what="the number of samples is missing",
            hint="make the database again",
            fatal=True,
            samples=0,
        )
        return
    for number in range(1, int(count) + 1):
        place = f"{database}: label-{number:09d}"
        member = files.find(f"{database}/image-{number:09d}")
        if member is None:
            yield Problem(
                kind="missing-picture", place=place, what=f"there is no image-{number:09d}", hint="make it again",
                missing=True,
            )  # fmt: skip
            continue
        label = files.value(database, f"label-{number:09d}")
        if label is None:
            yield Problem(kind="empty-label", place=place, what="is missing", hint="make the database again")
            continue
        try:
            text = label.decode("utf-8")
        except UnicodeDecodeError:
            yield Problem(kind="bad-encoding", place=place, what="is not UTF-8", hint="write labels in UTF-8")
            continue
        yield Record(member=member, place=place, text=text)


LAYOUT = _Lmdb()
