"""All samples of a run at a glance: what has to be known of each to split, check and report on them, without pictures.

About a hundred bytes a sample, so a million fit into memory easily. Everything longer stays in the shards' indexes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from ocr_finetune_trainer.data import store
from ocr_finetune_trainer.data.columns import numbers
from ocr_finetune_trainer.data.pictures import decode, difference_hashes
from ocr_finetune_trainer.data.split import TEST, TRAIN, VALIDATION
from ocr_finetune_trainer.data.store import Sample, Shard, ViewRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Catalogue", "Part", "collect"]

_SIDES = {"": -1, "train": TRAIN, "validation": VALIDATION, "test": TEST}
UNUSED = -1


@dataclass(frozen=True, kw_only=True)
class Part:
    """A source that has been read, as the catalogue takes it.

    Attributes:
        name: Name of the source.
        shards: Its shards.
        side: The side all its samples lie on, or -1 if its own labels or the split decide.
    """

    name: str
    shards: Sequence[Shard]
    side: int = -1


@dataclass(kw_only=True)
class Catalogue:
    """All samples, column by column; N of them.

    Attributes:
        folder: The cache's folder of shards.
        shards: All shards.
        sources: Names of the sources.
        shard: int32 (N,): number of the shard.
        row: int32 (N,): row in it.
        source: int32 (N,): number of the source.
        width: int32 (N,): columns of the picture.
        height: int32 (N,): rows of the picture.
        boxes: int32 (N,): texts on the page; -1 for a line.
        group: uint64 (N,): hash of the group, 0 for none.
        given: int8 (N,): the side its source gives it, or -1.
        across: uint64 (N,): perceptual hash.
        down: uint64 (N,): perceptual hash.
        cells: uint8 (N, 64): mean brightness of 8x8 parts of the picture.
        digest: uint64 (N,): hash of the picture's bytes.
        contrast: uint8 (N,): of the picture.
        brightness: uint8 (N,): of the picture.
        encoded: int32 (N,): encoded size of the picture.
        texts: The labels, as they are trained.
        converted: How many pictures were converted, by reason.
        side: int8 (N,): where it lies; `UNUSED` for a rejected one.
    """

    folder: Path
    shards: list[Shard]
    sources: list[str]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    source: NDArray[np.int32]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    boxes: NDArray[np.int32]
    group: NDArray[np.uint64]
    given: NDArray[np.int8]
    across: NDArray[np.uint64]
    down: NDArray[np.uint64]
    cells: NDArray[np.uint8]
    digest: NDArray[np.uint64]
    contrast: NDArray[np.uint8]
    brightness: NDArray[np.uint8]
    encoded: NDArray[np.int32]
    texts: list[str]
    converted: dict[str, int]
    side: NDArray[np.int8] = field(init=False)

    def __post_init__(self) -> None:
        self.side = np.zeros(len(self.row), dtype=np.int8)

    def __len__(self) -> int:
        return len(self.row)

    def _index(self, shard: int) -> pa.Table:
        return _read_index(self.folder / f"{self.shards[shard].name}.index.arrow")

    def place(self, index: int) -> str:
        """Where the label of a sample stands, with its picture."""
        table = self._index(int(self.shard[index]))
        row = int(self.row[index])
        return _origin(str(table.column("place")[row]), str(table.column("path")[row]))

    def image(self, index: int) -> bytes:
        """The encoded picture of a sample."""
        reader = pa.ipc.open_file(pa.memory_map(str(self.folder / f"{self.shards[int(self.shard[index])].name}.arrow")))
        batch, row = divmod(int(self.row[index]), store.ROWS_A_BATCH)
        content: bytes = reader.get_batch(batch).column(0)[row].as_py()
        return content

    def sample(self, index: int) -> Sample:
        """A sample as a data set gives it."""
        name = self.shards[int(self.shard[index])].name
        reader = pa.ipc.open_file(pa.memory_map(str(self.folder / f"{name}.arrow")))
        batch, row = divmod(int(self.row[index]), store.ROWS_A_BATCH)
        return store.sample_of(
            reader.get_batch(batch),
            row,
            id=index,
            width=int(self.width[index]),
            height=int(self.height[index]),
            text=self.texts[index],
            source=int(self.source[index]),
            names=lambda: ("", self.place(index)),
        )

    def picture(self, index: int) -> NDArray[np.uint8]:
        """The decoded picture of a sample: uint8 (H, W, 3), BGR."""
        return decode(self.image(index))

    def rows(self, chosen: NDArray[np.int64]) -> Iterator[ViewRow]:
        """The rows of a view, for samples in rising order; one shard's index is open at a time."""
        ends = np.flatnonzero(np.diff(self.shard[chosen])) + 1
        for members in np.split(chosen, ends) if len(chosen) else ():
            shard = int(self.shard[members[0]])
            table = self._index(shard)
            groups, places, paths = (_strings(table, name) for name in ("group", "place", "path"))
            rows = self.row[members].tolist()
            columns: dict[str, list[Any]] = {
                "shard": [shard] * len(rows),
                "row": rows,
                "text": [self.texts[index] for index in members.tolist()],
                "group": [groups[row] for row in rows],
                "origin": [_origin(places[row], paths[row]) for row in rows],
                **{name: getattr(self, name)[members].tolist() for name in ("width", "height", "source", "digest")},
            }
            yield from map(ViewRow._make, zip(*(columns[name] for name in ViewRow._fields), strict=True))


def _strings(table: pa.Table, name: str) -> list[str]:
    values: list[Any] = table.column(name).to_pylist()
    return values


def _origin(place: str, path: str) -> str:
    return place if place.endswith(path) else f"{place} ({path})"


@lru_cache(maxsize=64)
def _read_index(path: Path) -> pa.Table:
    return store.read_table(path)[0]


def collect(parts: Sequence[Part], *, folder: Path, group_by: str) -> Catalogue:
    """Reads the indexes of all shards.

    Args:
        parts: The sources.
        folder: The cache's folder of shards.
        group_by: `auto`, `none`, or a regular expression on the picture's path whose first group names the group.
    """
    pattern = re.compile(group_by) if group_by not in ("auto", "none") else None
    shards: list[Shard] = []
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    texts: list[str] = []
    converted: dict[str, int] = {}
    for number, part in enumerate(parts):
        for shard in part.shards:
            table, _ = store.read_table(folder / f"{shard.name}.index.arrow")
            count = len(table)
            columns["shard"].append(np.full(count, len(shards), dtype=np.int32))
            columns["row"].append(np.arange(count, dtype=np.int32))
            columns["source"].append(np.full(count, number, dtype=np.int32))
            columns["group"].append(_groups(table, part.name, group_by, pattern))
            columns["given"].append(_given(table) if part.side < 0 else np.full(count, part.side, dtype=np.int8))
            cells = _cells(table)
            across, down = difference_hashes(cells)
            for name, values in (("cells", cells), ("across", across), ("down", down)):
                columns[name].append(values)
            for name, theirs in _COLUMNS.items():
                if theirs:
                    columns[name].append(numbers(table, theirs))
            texts.extend(_strings(table, "text"))
            for reason in _strings(table, "converted"):
                if reason:
                    converted[reason] = converted.get(reason, 0) + 1
            shards.append(shard)
    whole = {name: _whole(name, columns.pop(name)) for name in _COLUMNS}  # the parts of a column go with it
    return Catalogue(
        folder=folder, shards=shards, sources=[part.name for part in parts], texts=texts, converted=converted, **whole
    )


def _whole(name: str, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if parts:
        return np.concatenate(parts)
    return np.zeros(_SHAPES.get(name, (0,)), dtype=_TYPES.get(name, np.int32))


# Columns of the catalogue, and those of the shards' indexes that they are read from; empty: made here.
_COLUMNS = {
    "cells": "", "shard": "", "row": "", "source": "", "group": "", "given": "", "width": "width", "height": "height",
    "boxes": "boxes", "across": "", "down": "", "digest": "digest", "contrast": "contrast",
    "brightness": "brightness", "encoded": "bytes",
}  # fmt: skip
_SHAPES = {"cells": (0, 64)}
_TYPES = {
    "cells": np.uint8, "group": np.uint64, "across": np.uint64, "down": np.uint64, "digest": np.uint64, "given": np.int8,
    "contrast": np.uint8, "brightness": np.uint8,
}  # fmt: skip


def _given(table: pa.Table) -> NDArray[np.int8]:
    return np.asarray([_SIDES[side] for side in _strings(table, "split")], dtype=np.int8)


def _cells(table: pa.Table) -> NDArray[np.uint8]:
    content: list[Any] = [chunk.buffers()[2] for chunk in table.column("cells").chunks if len(chunk)]
    cells: NDArray[np.uint8] = np.frombuffer(b"".join(content), dtype=np.uint8).reshape(-1, 64)
    return cells


def _groups(table: pa.Table, source: str, group_by: str, pattern: re.Pattern[str] | None) -> NDArray[np.uint64]:
    if group_by == "none":
        return np.zeros(len(table), dtype=np.uint64)
    if pattern is None:
        names = _strings(table, "group")
    else:
        found = (pattern.search(path) for path in _strings(table, "path"))
        names = [(match.group(1 if match.re.groups else 0) or "") if match else "" for match in found]
    return np.asarray([_hash(source, name) if name else 0 for name in names], dtype=np.uint64)


@lru_cache(maxsize=4096)
def _hash(source: str, name: str) -> int:
    return xxh3_64_intdigest(f"{source}\0{name}".encode("utf-8", "surrogatepass")) | 1
