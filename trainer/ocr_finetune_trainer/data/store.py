"""The internal data set: encoded pictures in Arrow IPC shards, and views that say which of them belong to a split.

Shards lie in the workspace's cache, each under the hash of what went into it, so that runs share them and a killed
`prepare` goes on where it was. A view (`data/train/` and so on) is one small table: label, size, source and where the
picture lies. Both are memory-mapped: opening a million samples costs neither time nor memory, and any number of
processes and nodes read the same files. What is asked for seldom is compressed: the indexes of shards, which `prepare`
reads, and the names of samples, which messages and reports show.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from ocr_finetune_api.exit_codes import DataError, InputMissingError
from ocr_finetune_trainer.data.columns import column, numbers
from ocr_finetune_trainer.data.labels import frames_needed
from ocr_finetune_trainer.processes import no_search_for_cycles

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DataSet", "Sample", "Shard", "Texts", "ViewRow", "read_table", "sample_of", "write_shard", "write_view"]

FORMAT = 4
ROWS_A_BATCH = 64
# Shards that a process keeps open: each costs a file descriptor, of which many systems grant 1,024.
OPEN_SHARDS = 512
_VIEW_ROWS_A_BATCH = 16384
_NAMES_A_BATCH = 4096
DESCRIPTION = "dataset.json"
INDEX = "index.arrow"
NAMES = "names.arrow"


def _schema(fields: Sequence[tuple[str, Any]]) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in fields])


_PICTURES: pa.Schema = _schema(
    [
        ("image", pa.binary()),
        ("points", pa.list_(pa.list_(pa.float32()))),
        ("texts", pa.list_(pa.string())),
        ("ignored", pa.list_(pa.bool_())),
    ]
)
_LINES: pa.Schema = _schema([("image", pa.binary())])
SHARD_INDEX: pa.Schema = _schema(
    [
        ("text", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.int32()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("path", pa.string()),
        ("place", pa.string()),
        ("converted", pa.string()),
        ("bytes", pa.int32()),
        ("contrast", pa.uint8()),
        ("brightness", pa.uint8()),
        ("cells", pa.binary()),
        ("digest", pa.uint64()),
    ]
)
_VIEW: pa.Schema = _schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("text", pa.string()),
        ("frames", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source", pa.int32()),
    ]
)
_NAMES: pa.Schema = _schema([("group", pa.string()), ("origin", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a data set.

    Attributes:
        id: Its number in the data set.
        image: The encoded picture; `data.pictures.decode` decodes it.
        width: Columns of the decoded picture.
        height: Rows of the decoded picture.
        text: The label of a line; empty for a page.
        polygons: Outlines of the texts of a page, float32 (N, 2) each, x before y in pixels; None for a line.
        texts: What they say.
        ignored: Which of them are neither to be found nor to be missed.
        source: Number of its source.
        names: Looks up its group and its origin.
    """

    id: int
    image: bytes
    width: int
    height: int
    text: str
    polygons: list[NDArray[np.float32]] | None
    texts: tuple[str, ...]
    ignored: tuple[bool, ...]
    source: int
    names: Callable[[], tuple[str, str]]

    @property
    def group(self) -> str:
        """What it may not be separated from."""
        return self.names()[0]

    @property
    def origin(self) -> str:
        """Where its label stands, for messages."""
        return self.names()[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard in the cache.

    Attributes:
        name: Name of its files, without suffix.
        size: Bytes of its pictures' file, to notice a file that was cut off.
    """

    name: str
    size: int


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, also when the machine fails."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_shard(
    folder: Path,
    name: str,
    *,
    pictures: Sequence[Mapping[str, Any]],
    index: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> Shard:
    """Writes pictures and their index, the index last: where it is, the shard is whole.

    Args:
        folder: The cache's folder of shards.
        name: The hash of what went in.
        pictures: Rows with `image`, `points`, `texts`, `ignored`.
        index: Rows of `SHARD_INDEX`.
        about: JSON values kept with the index.
    """
    file = folder / f"{name}.arrow"
    lines = all(row["points"] is None for row in pictures)
    _write_table(file, _LINES if lines else _PICTURES, pictures, rows=ROWS_A_BATCH)
    shard = Shard(name=name, size=file.stat().st_size)
    schema = SHARD_INDEX.with_metadata(
        {b"ocrft": json.dumps({**about, "format": FORMAT, "size": shard.size}, ensure_ascii=False).encode()}
    )
    _write_table(folder / f"{name}.index.arrow", schema, index, rows=_VIEW_ROWS_A_BATCH, options=_compressed())
    return shard


def _compressed() -> pa.ipc.IpcWriteOptions:
    return pa.ipc.IpcWriteOptions(compression="zstd")


def _write_table(
    path: Path,
    schema: pa.Schema,
    rows_: Sequence[Mapping[str, Any]],
    *,
    rows: int,
    options: pa.ipc.IpcWriteOptions | None = None,
) -> None:
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
            for start in range(0, len(rows_), rows):
                part = rows_[start : start + rows]
                columns = [column([row[field.name] for row in part], field.type) for field in schema]
                writer.write_batch(pa.record_batch(columns, schema=schema))
        _sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Maps a table of the store, and gives what was kept with it.

    Raises:
        DataError: It is damaged or of another format.
    """
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        about = json.loads((table.schema.metadata or {}).get(b"ocrft", b"{}"))
    except (pa.ArrowInvalid, OSError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: is damaged ({error})", hint="remove it; prepare makes it again") from error
    return table, about


class Texts(Sequence[str]):
    """The labels of a data set: a sequence of strings that are made when asked for."""

    def __init__(self, column: pa.ChunkedArray[Any]) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        text: str = self._column[int(index)].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for chunk in self._column.chunks:
            values: list[Any] = chunk.to_pylist()
            yield from values


class DataSet:
    """A prepared data set: random access by number, safe to read from many processes.

    Attributes:
        path: Its folder.
        content_hash: Identifies its content, labels and order included.
        source_names: Names of the sources that `Sample.source` and `sources` number.
        sizes: int32 (N, 2): width and height of each picture.
        sources: int32 (N,): source of each sample.
        frames: int32 (N,): frames that CTC needs for each label, `labels.frames_needed` of its code points.
        texts: Labels of all samples.
    """

    def __init__(self, path: Path, description: Mapping[str, Any], table: pa.Table) -> None:
        """Use `open`."""
        self.path = path
        self.content_hash: str = description["contentHash"]
        self.source_names: tuple[str, ...] = tuple(description["sources"])
        self._shards = [Shard(name=name, size=size) for name, size in description["shards"]]
        self._cache: Path = (path / str(description["cache"])).resolve()
        self._shard = numbers(table, "shard")
        self._row = numbers(table, "row")
        self.sizes: NDArray[np.int32] = np.stack([numbers(table, "width"), numbers(table, "height")], axis=1)
        self.sources: NDArray[np.int32] = numbers(table, "source")
        self.frames: NDArray[np.int32] = numbers(table, "frames")
        self.texts = Texts(table.column("text"))
        self._readers: dict[int, pa.ipc.RecordBatchFileReader] = {}
        self._named: tuple[int, pa.RecordBatch] | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens a data set that `prepare` left.

        Raises:
            InputMissingError: There is none, or one of its shards is gone.
            DataError: It is damaged.
        """
        try:
            description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputMissingError(f"{path}: holds no prepared data set", hint="run prepare first") from None
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"{path / DESCRIPTION}: can't be read ({error})", hint="run prepare again") from error
        if description.get("format") != FORMAT:
            raise DataError(
                f"{path}: is a data set of format {description.get('format')}, this version reads {FORMAT}",
                hint="run prepare again",
            )
        table, _ = read_table(path / INDEX)
        if len(table) != description["samples"]:
            raise DataError(f"{path / INDEX}: has {len(table)} of {description['samples']} rows", hint="prepare again")
        data = cls(path, description, table)
        data._check_shards()
        return data

    def _check_shards(self) -> None:
        problems = []
        for shard in self._shards:
            file = self._file(shard)
            try:
                size = file.stat().st_size
            except OSError:
                problems.append(f"{file}: is gone")
                continue
            if size != shard.size:
                problems.append(f"{file}: has {size} bytes instead of {shard.size}")
        if problems:
            raise InputMissingError(*problems, hint="remove the result of prepare and run it again")

    def _file(self, shard: Shard) -> Path:
        return self._cache / f"{shard.name}.arrow"

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return DataSet.open, (self.path,)

    def __len__(self) -> int:
        return len(self._row)

    def _batch(self, index: int) -> tuple[pa.RecordBatch, int]:
        number = int(self._shard[index])
        reader = self._readers.get(number)
        if reader is None:
            if len(self._readers) >= OPEN_SHARDS:
                del self._readers[next(iter(self._readers))]
            reader = self._readers[number] = self._open_shard(self._shards[number])
        batch, row = divmod(int(self._row[index]), ROWS_A_BATCH)
        return reader.get_batch(batch), row

    def _open_shard(self, shard: Shard) -> pa.ipc.RecordBatchFileReader:
        file = self._file(shard)
        try:
            return pa.ipc.open_file(pa.memory_map(str(file)))
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{file}: is damaged ({error})", hint="remove it and run prepare again") from error

    def image(self, index: int) -> bytes:
        """The encoded picture alone."""
        batch, row = self._batch(index)
        content: bytes = batch.column(0)[row].as_py()
        return content

    def origin(self, index: int) -> str:
        """Where a sample comes from, for messages."""
        return self.names(index)[1]

    def group(self, index: int) -> str:
        """What a sample may not be separated from."""
        return self.names(index)[0]

    def names(self, index: int) -> tuple[str, str]:
        """Group and origin of a sample; those of its neighbours are at hand then."""
        number, row = divmod(int(index), _NAMES_A_BATCH)
        if self._named is None or self._named[0] != number:
            file = self.path / NAMES
            try:
                with pa.memory_map(str(file)) as source:
                    self._named = (number, pa.ipc.open_file(source).get_batch(number))
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{file}: is damaged ({error})", hint="run prepare again") from error
        group, origin = (str(column[row]) for column in self._named[1].columns)
        return group, origin

    def __getitem__(self, index: int) -> Sample:
        """One sample by number; IndexError beyond the last."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch, row = self._batch(index)
        return sample_of(
            batch,
            row,
            id=int(index),
            width=int(self.sizes[index, 0]),
            height=int(self.sizes[index, 1]),
            text=self.texts[index],
            source=int(self.sources[index]),
            names=partial(self.names, index),
        )


def sample_of(batch: pa.RecordBatch, row: int, **known: Any) -> Sample:
    """A sample from its row in a shard, and what is known of it besides.

    Args:
        batch: The batch of the shard.
        row: Its row in it.
        known: The fields of `Sample` that do not lie in the shard.
    """
    points: list[Any] | None = batch.column(1)[row].as_py() if batch.num_columns > 1 else None
    lines = points is None
    polygons = None if points is None else [np.asarray(flat, dtype=np.float32).reshape(-1, 2) for flat in points]
    return Sample(
        image=batch.column(0)[row].as_py(),
        polygons=polygons,
        texts=() if lines else tuple(batch.column(2)[row].as_py() or ()),
        ignored=() if lines else tuple(batch.column(3)[row].as_py() or ()),
        **known,
    )


class ViewRow(NamedTuple):
    """One row of a view: a sample and where its picture lies."""

    shard: int
    row: int
    text: str
    width: int
    height: int
    source: int
    group: str
    origin: str
    digest: int


@no_search_for_cycles()
def write_view(
    folder: Path, *, cache: Path, shards: Sequence[Shard], sources: Sequence[str], rows: Iterator[ViewRow]
) -> int:
    """Writes a data set that lies in shards of the cache; the description last.

    Args:
        folder: Where it goes; what was there before is replaced.
        cache: The cache's folder of shards.
        shards: The shards that `ViewRow.shard` numbers.
        sources: The names that `ViewRow.source` numbers.
        rows: The samples, in their order; taken one after the other, never all at once.

    Returns:
        How many samples it has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    identity = hashlib.sha256()
    mark = uuid.uuid4().hex[:8]
    asides = {name: folder / f".{name}.{mark}" for name in (INDEX, NAMES)}
    count = 0
    try:
        with (
            pa.OSFile(str(asides[INDEX]), "wb") as sink,
            pa.ipc.new_file(sink, _VIEW) as index,
            pa.OSFile(str(asides[NAMES]), "wb") as names_sink,
            pa.ipc.new_file(names_sink, _NAMES, options=_compressed()) as names,
        ):
            while batch := list(islice(rows, _VIEW_ROWS_A_BATCH)):
                values = dict(zip(ViewRow._fields, zip(*batch, strict=True), strict=True))
                identity.update(np.asarray(values["digest"], dtype="<u8").tobytes())
                identity.update(np.asarray(values["source"], dtype="<i4").tobytes())
                identity.update("\0".join(values["text"]).encode("utf-8", "surrogatepass"))
                values["frames"] = tuple(frames_needed(text) for text in values["text"])
                index.write_batch(_batch_of(values, _VIEW))
                for start in range(0, len(batch), _NAMES_A_BATCH):
                    part = slice(start, start + _NAMES_A_BATCH)
                    names.write_batch(_batch_of({name: values[name][part] for name in _NAMES.names}, _NAMES))
                count += len(batch)
        for name, aside in asides.items():
            _sync(aside)
            aside.replace(folder / name)
    finally:
        for aside in asides.values():
            aside.unlink(missing_ok=True)
    description = {
        "format": FORMAT,
        "samples": count,
        "contentHash": identity.hexdigest()[:16],
        "sources": list(sources),
        "cache": os.path.relpath(cache.resolve(), folder.resolve()),
        "shards": [[shard.name, shard.size] for shard in shards],
    }
    replace_file(folder / DESCRIPTION, json.dumps(description, ensure_ascii=False).encode())
    return count


def _batch_of(values: Mapping[str, Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch([column(values[field.name], field.type) for field in schema], schema=schema)
